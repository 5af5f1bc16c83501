"""One row per optimizer: how it is made for the contract tests. Later optimizers join by adding a row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from curvlab.optim import create
from curvlab.optim.core import Optimizer


@dataclass(frozen=True)
class Row:
    """Settings that converge on the small problems; `wrong` are settings that must be refused."""

    name: str
    settings: dict[str, Any]
    wrong: dict[str, Any] = field(default_factory=lambda: {"lr": -1.0})
    watches: bool = True  # needs the model to run inside a closure
    scheduled: bool = True  # has operators that are renewed every inverse_interval steps
    power: float = 1.0  # weights decay by 1 − αᵖγ
    eight_bits: float = 0.05  # share of the first loss by which bfloat16 activations may change the last
    variant: str = ""  # what sets this row apart from another of the same optimizer

    @property
    def label(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name

    def make(self, model: nn.Module, likelihood: str = "categorical", **changes: Any) -> Optimizer:
        return create(self.name, model, likelihood=likelihood, **{**self.settings, **changes})


ROWS = [
    Row("sgd", {"lr": 0.1}, watches=False, scheduled=False),
    Row("adam", {"lr": 0.02}, {"betas": (1.0, 0.999), "eps": 0.0}, watches=False, scheduled=False),
    Row("adamw", {"lr": 0.02}, {"betas": (0.9, 0.99, 0.999), "eps": -1.0}, watches=False, scheduled=False),
    Row("rmsprop", {"lr": 0.005}, {"alpha": -0.1}, watches=False, scheduled=False),
    # In bfloat16 a rounding of the gradient can be one of the whole step.
    Row(
        "muon",
        {"lr": 0.02, "precision": "weights", "weight_decay": 0.0},
        {"ns_steps": 0},
        watches=False,
        scheduled=False,
    ),
    Row("kfac", {"lr": 0.1, "damping": 0.03}, {"damping": 0.0, "inverse_interval": 0}),
    Row(
        "kfac",
        {"lr": 1.0, "damping": 0.1, "step_size": "mvp", "adapt_damping": True},
        {"damping_interval": 0, "step_size": "best"},
        variant="mvp-adapted",
    ),
    Row("kfac", {"lr": 0.1, "damping": 0.03, "norm_constraint": 0.1}, {"norm_constraint": 0.0}, variant="constrained"),
    Row("ekfac", {"lr": 0.1, "damping": 0.03}, {"decay": 1.5}),
    Row("tnt", {"lr": 0.03, "damping": 0.3}, {"statistics_interval": 1.5}),
    Row("shampoo", {"lr": 0.02, "damping": 1e-2, "inverse_interval": 5}, {"momentum": 1.0}, watches=False),
    Row("block-fisher", {"lr": 0.1, "damping": 0.3, "inverse_interval": 5}, {"weight_decay": -1.0}),
    Row("kbfgs-20", {"lr": 0.3, "damping": 0.1}, {"damping": 2.0, "mu": 0.0}, scheduled=False),
    Row("kbfgsl-20", {"lr": 0.3, "damping": 0.1}, {"pairs": 0}, scheduled=False),
    Row(
        "kbfgsl-20",
        {"lr": 0.3, "damping": 0.2, "exact": True, "skip": True},
        {"exact": "yes"},
        scheduled=False,
        # Its pairs y are differences of two gradients near each other, each good to 8 bits: of y fewer are left.
        eight_bits=0.15,
        variant="proved",
    ),
    Row("kbfgs", {"lr": 0.1, "damping": 0.3}, {"damping": 0.0, "interval": 0}, scheduled=False),
    Row(
        "kbfgs",
        {"lr": 0.1, "damping": 0.3, "interval": 3},
        {"interval": 1.5},
        scheduled=False,
        variant="interval",
    ),
    Row(
        "kbfgs",
        {"lr": 0.1, "damping": 0.3, "double_gradient": True},
        {"double_gradient": 2},
        scheduled=False,
        variant="double",
    ),
    Row("kbfgsl", {"lr": 0.1, "damping": 0.3}, {"pair_damping": "none"}, scheduled=False),
    Row("lnb", {"lr": 0.04}, {"minimum_norm": -1.0, "iterations": 0}, scheduled=False, power=0.5),
    Row("lnb", {"lr": 0.04, "online": False}, {"online": 2}, scheduled=False, power=0.5, variant="offline"),
    Row("fop", {"lr": 0.1}, {"hyper_lr": -1.0, "form": "round"}, watches=False, scheduled=False),
    Row("s-hd", {"lr": 0.1}, {"hyper_lr": -1.0}, watches=False, scheduled=False),
    Row("pp-hd", {"lr": 0.1}, {"base": "rmsprop"}, watches=False, scheduled=False),
]
