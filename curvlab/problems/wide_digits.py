"""Digits at 28×28 as they are and inverted, 1 − x, for one network (LNB, section 5.2), and the network of FOP, Figure
2.

lnb has binary MNIST and batches of 1,000; here are 1,500 grey digits, resized, and batches of 100. Settings come from
small grids (factors of 3) of 3 to 5 epochs with one seed; the wide network's for K-FAC, EKFAC, TNT and Shampoo from one
to three runs of 1 or 2 epochs, and those on inverted digits are the same, as LNB's and Muon's are for all three. Exact
blocks fit no memory. FOP, S-HD and PP-HD have gradient descent's rate, tried in one run of 3 to 10 epochs; a full
matrix of 784 inputs learns ten to a hundred times slower than FOP's default, at which the training loss was twice as
large.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from curvlab.problems.initialisation import glorot_normal, he
from curvlab.problems.metrics import accuracy
from curvlab.problems.networks import mlp
from curvlab.problems.problem import Problem
from curvlab.problems.registry import register

_WIDE = register(
    Problem(
        name="digits-wide-mlp",
        description="digits at 28x28, 784-800-800-10, tanh",
        source="LNB, section 5.2, on the embedded digits",
        model=partial(mlp, (784, 800, 800, 10), "Tanh"),
        data="digits-28x28",
        input_shape=(784,),
        targets="labels",
        likelihood="categorical",
        metrics={"accuracy": accuracy},
        test_size=297,
        batch_size=100,
        epochs=20,
        settings={
            "sgd": {"lr": 0.03},
            "adam": {"lr": 0.001, "eps": 1e-8},
            "adamw": {"lr": 0.001},
            "rmsprop": {"lr": 1e-4, "eps": 1e-8},
            "muon": {"lr": 0.003},
            "lnb": {"lr": 0.03, "ridge": 0.01},
            "kbfgs-20": {"lr": 1.0, "damping": 0.3},
            "kbfgsl-20": {"lr": 1.0, "damping": 0.3},
            "kbfgs": {"lr": 0.1, "damping": 0.3},
            "kbfgsl": {"lr": 0.1, "damping": 0.3},
            "kfac": {"lr": 0.01, "damping": 0.1},
            "ekfac": {"lr": 0.003, "damping": 0.1},
            "tnt": {"lr": 3e-4, "damping": 0.1},
            "shampoo": {"lr": 0.003, "damping": 0.001},
            "fop": {"lr": 0.03, "hyper_lr": 1e-5},
            "s-hd": {"lr": 0.03},
            "pp-hd": {"lr": 0.03},
        },
        initialise=glorot_normal,
    )
)

register(
    replace(
        _WIDE,
        name="digits-inverted-wide-mlp",
        description="the same with pixels 1 - x",
        data="digits-28x28-inverted",
        settings={
            **_WIDE.settings,
            "sgd": {"lr": 0.01},
            "adam": {"lr": 3e-4, "eps": 1e-8},
            "adamw": {"lr": 3e-4},
            "fop": {"lr": 0.01, "hyper_lr": 1e-5},
            "s-hd": {"lr": 0.01},
            "pp-hd": {"lr": 0.01},
        },
    )
)

register(
    Problem(
        name="digits-mlp-4x100",
        description="digits at 28x28, 784-100-100-100-100-10, ReLU",
        source="FOP, Figure 2, on the embedded digits",
        model=partial(mlp, (784, 100, 100, 100, 100, 10)),
        data="digits-28x28",
        input_shape=(784,),
        targets="labels",
        likelihood="categorical",
        metrics={"accuracy": accuracy},
        test_size=297,
        batch_size=100,
        epochs=20,
        settings={
            "sgd": {"lr": 0.01},
            "adam": {"lr": 0.003, "eps": 1e-8},
            "adamw": {"lr": 0.003},
            "rmsprop": {"lr": 3e-4, "eps": 1e-8},
            "muon": {"lr": 0.003},
            "lnb": {"lr": 0.03, "ridge": 0.01},
            "kbfgs-20": {"lr": 1.0, "damping": 0.3},
            "kbfgsl-20": {"lr": 1.0, "damping": 0.3},
            "kbfgs": {"lr": 0.1, "damping": 0.3},
            "kbfgsl": {"lr": 0.1, "damping": 0.3},
            "kfac": {"lr": 0.03, "damping": 0.3},
            "ekfac": {"lr": 0.01, "damping": 0.1},
            "tnt": {"lr": 0.001, "damping": 0.1},
            "shampoo": {"lr": 0.01, "damping": 0.001},
            "fop": {"lr": 0.01, "hyper_lr": 1e-6},
            "s-hd": {"lr": 0.01},
            "pp-hd": {"lr": 0.01},
        },
        initialise=he,
    )
)
