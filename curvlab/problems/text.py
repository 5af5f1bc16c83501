"""A decoder of text, at a size that trains in minutes on two cores: the characters of a play.

Sequences of 64 characters; the play's last tenth is held out. Settings are those of the lowest held-out loss after 40
steps with one seed, among two or three rates a factor of 3 apart, with one or two dampings: 2.43 nats per character
(Muon) to 2.79 (Shampoo), where single characters alone allow 3.3. The limited-memory forms of K-BFGS have what the full
ones have, S-HD what gradient descent has. Exact blocks of 37,000 weights fit no memory.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from curvlab.formats.curvlab_file.builders import build_registered, register_builder
from curvlab.problems.metrics import accuracy, perplexity
from curvlab.problems.problem import Problem
from curvlab.problems.registry import register

if TYPE_CHECKING:
    from torch import nn

LAYERS = 4


def _text_transformer(**arguments: Any) -> nn.Module:
    from curvlab.problems.text_transformer import TextTransformer

    return TextTransformer(**arguments)


def small_normal(module: nn.Module) -> None:
    """W ~ N(0, 0.02²), in the last map of each part of a block 0.02/√(2·blocks), b = 0 (Radford et al. 2019)."""
    from torch import nn

    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            last = name.endswith(("attention.out.weight", "fc2.weight"))
            nn.init.normal_(parameter, std=0.02 / (2 * LAYERS) ** 0.5 if last else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


register_builder("text-transformer", _text_transformer)

register(
    Problem(
        name="text-transformer",
        description="next character of a play, 4 causal blocks of width 96 with 4 heads, GELU",
        source="Radford et al. 2019, at the size of an embedded text",
        model=partial(
            build_registered,
            "text-transformer",
            {"vocabulary": 61, "length": 64, "width": 96, "hidden": 384, "heads": 4, "num_layers": LAYERS},
        ),
        data="coriolanus",
        input_shape=(64,),
        targets="labels",
        likelihood="categorical",
        metrics={"accuracy": accuracy, "perplexity": perplexity},
        test_size=241,
        batch_size=32,
        epochs=10,
        settings={
            "sgd": {"lr": 0.001},
            "adam": {"lr": 0.001, "eps": 1e-8},
            "adamw": {"lr": 0.001},
            "rmsprop": {"lr": 3e-4, "eps": 1e-8},
            "muon": {"lr": 0.01},
            "lnb": {"lr": 0.03, "ridge": 0.03},
            "kbfgs-20": {"lr": 0.3, "damping": 1.0},
            "kbfgsl-20": {"lr": 0.3, "damping": 1.0},
            "kbfgs": {"lr": 0.01, "damping": 1.0},
            "kbfgsl": {"lr": 0.01, "damping": 1.0},
            "kfac": {"lr": 0.003, "damping": 1.0},
            "ekfac": {"lr": 0.003, "damping": 1.0},
            "tnt": {"lr": 1e-4, "damping": 0.1},
            "shampoo": {"lr": 0.003, "damping": 0.01},
            "fop": {"lr": 0.001},
            "s-hd": {"lr": 0.001},
            "pp-hd": {"lr": 0.001},
        },
        initialise=small_normal,
        held_out="last",
    )
)
