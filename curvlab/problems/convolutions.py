"""The 9-layer convolutional network of FOP, section 4.1, "inspired by Springenberg et al.", on CIFAR-10 and on the
digits.

The paper says no more than that the top two layers are 1×1: this is All-CNN-C without its dropout. Settings for the
digits come from small grids (factors of 3) of 1 to 4 epochs with one seed; for CIFAR-10 there is the paper's own rate
(it falls to a tenth after 80 epochs; FOP and its baselines learn with 1e-4, their default), and for LNB what the digits
have. Nothing was trained on CIFAR-10 here: LNB was seen to lower the loss from 2.3 to 1.8 in 8 steps on pictures of
clothes in its shape. Test images of CIFAR-10 are drawn by seed, as an archive does not say which they are.
"""

from __future__ import annotations

from functools import partial

from curvlab.problems.initialisation import he
from curvlab.problems.metrics import accuracy
from curvlab.problems.networks import all_convolutional
from curvlab.problems.problem import Problem
from curvlab.problems.registry import register

CIFAR = "cifar10.npz"
OBTAIN_CIFAR = (
    "write CIFAR-10 as a numpy archive of x (60000, 32, 32, 3), uint8, and y (60000,), "
    "or give the path of one, or of a folder with one folder of images per class"
)

register(
    Problem(
        name="digits-cnn9",
        description="digits at 8x8, seven 3x3 and two 1x1 convolutions of 16 and 32 channels, ReLU",
        source="FOP, section 4.1, at the size of the embedded digits",
        model=partial(all_convolutional, 1, (16, 32), 10),
        data="digits",
        input_shape=(1, 8, 8),
        targets="labels",
        likelihood="categorical",
        metrics={"accuracy": accuracy},
        test_size=297,
        batch_size=100,
        epochs=20,
        settings={
            "sgd": {"lr": 0.03},
            "adam": {"lr": 0.01, "eps": 1e-8},
            "adamw": {"lr": 0.01},
            "rmsprop": {"lr": 0.001, "eps": 1e-8},
            "muon": {"lr": 0.01},
            "lnb": {"lr": 0.1, "ridge": 0.01},
            "kbfgs-20": {"lr": 1.0, "damping": 0.3},
            "kbfgsl-20": {"lr": 1.0, "damping": 0.3},
            "kbfgs": {"lr": 0.03, "damping": 0.1},
            "kbfgsl": {"lr": 0.03, "damping": 0.1},
            "kfac": {"lr": 0.03, "damping": 0.1},
            "ekfac": {"lr": 0.01, "damping": 0.1},
            "tnt": {"lr": 3e-4, "damping": 0.1},
            "shampoo": {"lr": 0.01, "damping": 0.001},
            "fop": {"lr": 0.03},
            "s-hd": {"lr": 0.03},
            "pp-hd": {"lr": 0.03},
        },
        initialise=he,
    )
)

register(
    Problem(
        name="cifar-cnn9",
        description="CIFAR-10, seven 3x3 and two 1x1 convolutions of 96 and 192 channels, ReLU",
        source="FOP, section 4.1",
        model=partial(all_convolutional, 3, (96, 192), 10),
        data=CIFAR,
        input_shape=(3, 32, 32),
        targets="labels",
        likelihood="categorical",
        metrics={"accuracy": accuracy},
        test_size=10_000,
        batch_size=128,
        epochs=150,
        settings={
            **{name: {"lr": 0.05} for name in ("sgd", "fop", "s-hd", "pp-hd")},
            "lnb": {"lr": 0.1, "ridge": 0.01},
        },
        initialise=he,
        obtain=OBTAIN_CIFAR,
    )
)
