"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): a multi-layer perceptron and a convolutional network.

Settings come from grids of 4 epochs on a fifth of the training set, and turned out the same for both networks. Of LNB's
rates 0.01, 0.03 and 0.1 the larger ends lower in training and the smaller on test images, where the perceptron's loss
is 0.44, 0.47 and 0.50, and Adam's 0.48. FOP has gradient descent's rate: with its default `hyper_lr` of 1e-4 the matrix
of 784 inputs overtakes the weights (test loss 0.87 beside gradient descent's 0.51), with 1e-6 it stays beside it. Exact
blocks do not fit any memory: 40 GB for the first layer of the perceptron.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from curvlab.problems.metrics import accuracy
from curvlab.problems.networks import mlp
from curvlab.problems.problem import Problem
from curvlab.problems.registry import register

if TYPE_CHECKING:
    from torch import nn


def convolutional() -> nn.Sequential:
    """1×28×28 → 16×14×14 → 32×7×7 → 64 → 10."""
    from torch import nn

    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 3, padding=1),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(16, 32, 3, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(1568, 64),
            relu3=nn.ReLU(),
            fc2=nn.Linear(64, 10),
        )
    )


_PERCEPTRON = register(
    Problem(
        name="fashion-mlp",
        description="Fashion-MNIST, 784-256-128-10, ReLU",
        source="curvlab",
        model=partial(mlp, (784, 256, 128, 10)),
        data="fashion-mnist",
        input_shape=(784,),
        targets="labels",
        likelihood="categorical",
        metrics={"accuracy": accuracy},
        test_size=10_000,
        batch_size=256,
        epochs=10,
        settings={
            "sgd": {"lr": 0.03},
            "adam": {"lr": 0.001, "eps": 1e-8},
            "rmsprop": {"lr": 1e-4, "eps": 1e-8},
            "lnb": {"lr": 0.03, "ridge": 0.01},
            "kbfgs-20": {"lr": 1.0, "damping": 0.3},
            "kbfgsl-20": {"lr": 1.0, "damping": 0.3},
            "kbfgs": {"lr": 0.1, "damping": 0.3},
            "kbfgsl": {"lr": 0.1, "damping": 0.3},
            "kfac": {"lr": 0.01, "damping": 0.1},
            "ekfac": {"lr": 0.003, "damping": 0.1},
            "tnt": {"lr": 3e-4, "damping": 0.1},
            "shampoo": {"lr": 0.003, "damping": 0.001},
            "fop": {"lr": 0.03, "hyper_lr": 1e-6},
        },
        obtain="give the folder of its IDX files with --data; Debian has them as the package dataset-fashion-mnist",
    )
)

register(
    replace(
        _PERCEPTRON,
        name="fashion-cnn",
        description="Fashion-MNIST, two 3x3 convolutions of 16 and 32 channels, 64 hidden units, ReLU",
        model=convolutional,
        input_shape=(1, 28, 28),
    )
)
