"""Vision transformers: a small one for the digits, and the one that LNB, section 5.3 trains on CIFAR-10.

Settings for the digits come from small grids (factors of 3) of 2 epochs with one seed; those of K-FAC, EKFAC, TNT and
gradient descent lie at the edge of what was tried, and FOP, S-HD and PP-HD share gradient descent's. Exact blocks fit
into memory, but an epoch takes half a minute: they were not tuned. For CIFAR-10 there is the rate of Equinox's
example, which lnb follows, for FOP too, and for LNB, whose rate the paper does not print, what the digits have; nothing
was trained on it here (on pictures of clothes in its shape LNB went from 2.41 to 2.29 in 20 steps), images are not
augmented, and test images are drawn by seed, as an archive does not say which they are.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from curvlab.formats.curvlab_file.builders import build_registered, register_builder
from curvlab.problems.convolutions import CIFAR, OBTAIN_CIFAR
from curvlab.problems.initialisation import glorot
from curvlab.problems.metrics import accuracy
from curvlab.problems.problem import Problem
from curvlab.problems.registry import register

if TYPE_CHECKING:
    from torch import nn


def _vision_transformer(**arguments: Any) -> nn.Module:
    from curvlab.problems.vision_transformer import VisionTransformer

    return VisionTransformer(**arguments)


def glorot_tokens(module: nn.Module) -> None:
    """Maps by Glorot, class token and positions ~ N(0, 0.1²): so small a network learns too slowly from other draws."""
    from torch import nn

    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            glorot(part)
    for name in ("class_token", "position"):
        nn.init.normal_(module.get_parameter(name), std=0.1)


register_builder("vision-transformer", _vision_transformer)

register(
    Problem(
        name="digits-vit",
        description="digits at 8x8 in patches of 2x2, 2 blocks of width 32 with 4 heads, GELU",
        source="LNB, section 5.3, at the size of the embedded digits",
        model=partial(
            build_registered,
            "vision-transformer",
            {"image": (1, 8, 8), "patch": 2, "width": 32, "hidden": 64, "heads": 4, "num_layers": 2},
        ),
        data="digits",
        input_shape=(1, 8, 8),
        targets="labels",
        likelihood="categorical",
        metrics={"accuracy": accuracy},
        test_size=297,
        batch_size=50,
        epochs=20,
        settings={
            "sgd": {"lr": 0.001},
            "adam": {"lr": 0.003, "eps": 1e-8},
            "adamw": {"lr": 0.003},
            "rmsprop": {"lr": 0.001, "eps": 1e-8},
            "muon": {"lr": 0.01},
            "lnb": {"lr": 0.003, "ridge": 0.03},
            "kbfgs-20": {"lr": 0.3, "damping": 0.3},
            "kbfgsl-20": {"lr": 0.3, "damping": 0.3},
            "kbfgs": {"lr": 0.03, "damping": 0.3},
            "kbfgsl": {"lr": 0.03, "damping": 0.3},
            "kfac": {"lr": 0.003, "damping": 0.03},
            "ekfac": {"lr": 0.003, "damping": 0.03},
            "tnt": {"lr": 3e-4, "damping": 0.03},
            "shampoo": {"lr": 0.003, "damping": 1e-4},
            "fop": {"lr": 0.001},
            "s-hd": {"lr": 0.001},
            "pp-hd": {"lr": 0.001},
        },
        initialise=glorot_tokens,
    )
)

register(
    Problem(
        name="cifar-vit",
        description="CIFAR-10 in patches of 4x4, 6 blocks of width 512, 8 heads, GELU, plain norms",
        source="LNB, section 5.3, after the example of Equinox",
        model=partial(
            build_registered,
            "vision-transformer",
            {
                "image": (3, 32, 32),
                "patch": 4,
                "width": 512,
                "hidden": 256,
                "heads": 8,
                "num_layers": 6,
                "affine": False,
                "dropout": 0.1,
            },
        ),
        data=CIFAR,
        input_shape=(3, 32, 32),
        targets="labels",
        likelihood="categorical",
        metrics={"accuracy": accuracy},
        test_size=10_000,
        batch_size=64,
        epochs=100,
        settings={
            "adam": {"lr": 1e-4, "eps": 1e-8},
            "lnb": {"lr": 0.003, "ridge": 0.03},
            "fop": {"base": "adam", "lr": 1e-4, "hyper_lr": 1e-6},
        },
        obtain=OBTAIN_CIFAR,
    )
)
