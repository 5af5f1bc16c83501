"""U-Nets: a class for every pixel, so that an example has as many loss terms as pixels; the loss is their sum.

Settings for the shapes come from small grids (factors of 3) of 2 to 4 epochs with one seed; those of K-FAC, EKFAC,
Shampoo and gradient descent lie at the edge of what was tried, and FOP, S-HD and PP-HD share gradient descent's. For
VOC there is a rate of Adam's to start from, also as FOP's base, and for LNB what the shapes have; nothing was trained
here. Its images and masks are read as arrays: pad
and resize them before (LNB, section 5.4), and give the border of objects, 255 in the masks, a class; held-out images
are drawn by seed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from curvlab.formats.curvlab_file.builders import build_registered, register_builder
from curvlab.problems.initialisation import he
from curvlab.problems.metrics import accuracy, mean_overlap
from curvlab.problems.problem import Problem
from curvlab.problems.registry import register

if TYPE_CHECKING:
    from torch import nn


def _unet(**arguments: Any) -> nn.Module:
    from curvlab.problems.unet import UNet

    return UNet(**arguments)


register_builder("unet", _unet)

register(
    Problem(
        name="shapes-unet",
        description="a disc and a square at 16x16, three classes per pixel, U-Net of 8, 16 and 32 channels, ReLU",
        source="LNB, section 5.4, with data made by curvlab",
        model=partial(build_registered, "unet", {"channels": 1, "widths": (8, 16, 32), "classes": 3}),
        data="shapes",
        input_shape=(1, 16, 16),
        targets="labels",
        likelihood="categorical",
        metrics={"accuracy": accuracy, "overlap": mean_overlap},
        test_size=100,
        batch_size=50,
        epochs=20,
        settings={
            "sgd": {"lr": 1e-4},
            "adam": {"lr": 0.003, "eps": 1e-8},
            "adamw": {"lr": 0.003},
            "rmsprop": {"lr": 0.001, "eps": 1e-8},
            "muon": {"lr": 0.03},
            "lnb": {"lr": 0.1, "ridge": 0.01},
            "kbfgs-20": {"lr": 0.1, "damping": 1.0},
            "kbfgsl-20": {"lr": 0.1, "damping": 1.0},
            "kbfgs": {"lr": 0.3, "damping": 30.0},
            "kbfgsl": {"lr": 0.3, "damping": 30.0},
            "kfac": {"lr": 0.03, "damping": 1.0},
            "ekfac": {"lr": 0.01, "damping": 1.0},
            "tnt": {"lr": 3e-4, "damping": 0.3},
            "shampoo": {"lr": 0.01, "damping": 0.001},
            "fop": {"lr": 1e-4},
            "s-hd": {"lr": 1e-4},
            "pp-hd": {"lr": 1e-4},
        },
        initialise=he,
    )
)

register(
    Problem(
        name="voc-unet",
        description="VOC 2012 segmentation at 384x384, 21 classes per pixel, U-Net of 64 to 1024 channels, ReLU",
        source="LNB, section 5.4",
        model=partial(build_registered, "unet", {"channels": 3, "widths": (64, 128, 256, 512, 1024), "classes": 21}),
        data="voc2012.npz",
        input_shape=(3, 384, 384),
        targets="labels",
        likelihood="categorical",
        metrics={"accuracy": accuracy, "overlap": mean_overlap},
        test_size=1449,
        batch_size=8,
        epochs=50,
        settings={
            "adam": {"lr": 1e-4, "eps": 1e-8},
            "lnb": {"lr": 0.1, "ridge": 0.01},
            "fop": {"base": "adam", "lr": 1e-4, "hyper_lr": 1e-6},
        },
        initialise=he,
        obtain=(
            "write images and masks as a numpy archive of x (n, 3, 384, 384), uint8 or float32, and y (n, 384, 384), "
            "whole numbers 0 to 20, or give the path of one"
        ),
    )
)
