"""Handwritten digits, embedded: the network of Ren 2022, section 4.3.4, an autoencoder, a convolutional and a linear
classifier.

Settings come from grids (lr by factors of 3, damping alike) of 10 epochs and hold for the three seeds tried. FOP, S-HD
and PP-HD have gradient descent's rate, tried once or twice for all epochs, and learn with 1e-4 but where a full matrix
of more than 100 inputs then overtook the weights. LNB's were tried again among their neighbours (lr by 3, ridge by 10,
5 epochs, one seed). K-BFGS's (lr, damping) are the best of six pairs after 4 epochs with one seed, or the second best
where its rate is three times smaller; its L-BFGS forms have the same. AdamW's and Muon's rates are those of the lowest
training loss after 10 epochs, the mean of two seeds, among Adam's, its third and its threefold, and among 0.001 to 0.1
in factors of 3; or the next smaller where its test loss was lower; a third seed held for all epochs. So on the other
embedded problems, but for the U-Net (one epoch) and the wide networks, which have what the one of 4 x 100 has, and
for AdamW and Muon on networks that the files say one seed was tried on (1 to 4 epochs).
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

from curvlab.problems.initialisation import glorot
from curvlab.problems.metrics import accuracy, reconstruction_error
from curvlab.problems.networks import autoencoder, mlp
from curvlab.problems.problem import Problem
from curvlab.problems.registry import register

if TYPE_CHECKING:
    from torch import nn


def convolutional() -> nn.Sequential:
    """1×8×8 → 8×8×8 → 16×4×4 → 10."""
    from torch import nn

    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 8, 3, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(8, 16, 3, stride=2, padding=1),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            fc=nn.Linear(256, 10),
        )
    )


register(
    Problem(
        name="digits-mlp",
        description="digits at 16x16, 256-20-20-20-20-10, tanh",
        source="Ren 2022, section 4.3.4, after Martens & Grosse 2015",
        model=partial(mlp, (256, 20, 20, 20, 20, 10), "Tanh"),
        data="digits-16x16",
        input_shape=(256,),
        targets="labels",
        likelihood="categorical",
        metrics={"accuracy": accuracy},
        test_size=297,
        batch_size=100,
        epochs=20,
        settings={
            "sgd": {"lr": 0.05},
            "adam": {"lr": 0.01, "eps": 1e-8},
            "adamw": {"lr": 0.01},
            "rmsprop": {"lr": 0.001, "eps": 1e-8},
            "muon": {"lr": 0.01},
            "lnb": {"lr": 0.1, "ridge": 0.01},
            "kbfgs-20": {"lr": 1.0, "damping": 0.3},
            "kbfgsl-20": {"lr": 1.0, "damping": 0.3},
            "kbfgs": {"lr": 0.3, "damping": 1.0},
            "kbfgsl": {"lr": 0.3, "damping": 1.0},
            "kfac": {"lr": 0.03, "damping": 0.1},
            "ekfac": {"lr": 0.01, "damping": 0.1},
            "tnt": {"lr": 0.001, "damping": 0.1},
            "shampoo": {"lr": 0.01, "damping": 0.01},
            "block-fisher": {"lr": 0.01, "damping": 0.1},
            "fop": {"lr": 0.05, "hyper_lr": 1e-6},
            "s-hd": {"lr": 0.05},
            "pp-hd": {"lr": 0.05},
        },
        initialise=glorot,
    )
)

register(
    Problem(
        name="digits-autoencoder",
        description="digits at 8x8, 64-32-16-8-16-32-64, ReLU, linear code",
        source="Ren 2022, Table 2.4, at the size of the embedded digits",
        model=partial(autoencoder, (64, 32, 16, 8)),
        data="digits",
        input_shape=(64,),
        targets="inputs",
        likelihood="bernoulli",
        metrics={"reconstruction_error": reconstruction_error},
        test_size=297,
        batch_size=100,
        epochs=30,
        settings={
            "sgd": {"lr": 0.02},
            "adam": {"lr": 0.01, "eps": 1e-8},
            "adamw": {"lr": 0.01},
            "rmsprop": {"lr": 0.001, "eps": 1e-8},
            "muon": {"lr": 0.03},
            "lnb": {"lr": 0.1, "ridge": 0.1},
            "kbfgs-20": {"lr": 1.0, "damping": 0.3},
            "kbfgsl-20": {"lr": 1.0, "damping": 0.3},
            "kbfgs": {"lr": 0.1, "damping": 0.3},
            "kbfgsl": {"lr": 0.1, "damping": 0.3},
            "kfac": {"lr": 0.01, "damping": 0.3},
            "ekfac": {"lr": 0.003, "damping": 0.1},
            "tnt": {"lr": 0.001, "damping": 0.3},
            "shampoo": {"lr": 0.003, "damping": 0.01},
            "block-fisher": {"lr": 0.003, "damping": 0.1},
            "fop": {"lr": 0.02},
            "s-hd": {"lr": 0.02},
            "pp-hd": {"lr": 0.02},
        },
        initialise=glorot,
    )
)

register(
    Problem(
        name="digits-cnn",
        description="digits at 8x8, two 3x3 convolutions of 8 and 16 channels, a linear layer, ReLU",
        source="curvlab",
        model=convolutional,
        data="digits",
        input_shape=(1, 8, 8),
        targets="labels",
        likelihood="categorical",
        metrics={"accuracy": accuracy},
        test_size=297,
        batch_size=100,
        epochs=20,
        settings={
            "sgd": {"lr": 0.1},
            "adam": {"lr": 0.01, "eps": 1e-8},
            "adamw": {"lr": 0.03},
            "rmsprop": {"lr": 0.001, "eps": 1e-8},
            "muon": {"lr": 0.03},
            "lnb": {"lr": 0.1, "ridge": 0.01},
            "kbfgs-20": {"lr": 1.0, "damping": 0.3},
            "kbfgsl-20": {"lr": 1.0, "damping": 0.3},
            "kbfgs": {"lr": 0.1, "damping": 0.3},
            "kbfgsl": {"lr": 0.1, "damping": 0.3},
            "kfac": {"lr": 0.01, "damping": 0.1},
            "ekfac": {"lr": 0.01, "damping": 0.1},
            "tnt": {"lr": 0.003, "damping": 0.3},
            "shampoo": {"lr": 0.01, "damping": 0.01},
            "block-fisher": {"lr": 0.01, "damping": 0.1},
            "fop": {"lr": 0.1},
            "s-hd": {"lr": 0.1},
            "pp-hd": {"lr": 0.1},
        },
    )
)

register(
    Problem(
        name="digits-linear",
        description="digits at 8x8, logistic regression: convex",
        source="curvlab",
        model=partial(mlp, (64, 10)),
        data="digits",
        input_shape=(64,),
        targets="labels",
        likelihood="categorical",
        metrics={"accuracy": accuracy},
        test_size=297,
        batch_size=100,
        epochs=20,
        settings={
            "sgd": {"lr": 0.1},
            "adam": {"lr": 0.03, "eps": 1e-8},
            "adamw": {"lr": 0.1},
            "rmsprop": {"lr": 0.003, "eps": 1e-8},
            "muon": {"lr": 0.1},
            "lnb": {"lr": 0.3, "ridge": 0.01},
            "kbfgs-20": {"lr": 1.0, "damping": 0.3},
            "kbfgsl-20": {"lr": 1.0, "damping": 0.3},
            "kbfgs": {"lr": 0.3, "damping": 1.0},
            "kbfgsl": {"lr": 0.3, "damping": 1.0},
            "kfac": {"lr": 0.03, "damping": 0.03},
            "ekfac": {"lr": 0.03, "damping": 0.03},
            "tnt": {"lr": 0.003, "damping": 0.03},
            "shampoo": {"lr": 0.01, "damping": 0.001},
            "block-fisher": {"lr": 0.03, "damping": 0.03},
            "fop": {"lr": 0.1},
            "s-hd": {"lr": 0.1},
            "pp-hd": {"lr": 0.1},
        },
    )
)
