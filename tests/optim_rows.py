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
    valley: float = 1.0  # share of the learning rate that Rosenbrock's valley bears

    def make(self, model: nn.Module, likelihood: str = "categorical", **changes: Any) -> Optimizer:
        return create(self.name, model, likelihood=likelihood, **{**self.settings, **changes})


ROWS = [
    Row("sgd", {"lr": 0.1}, watches=False, scheduled=False, valley=0.02),
    Row("adam", {"lr": 0.02}, {"beta1": 1.0, "damping": 0.0}, watches=False, scheduled=False),
    Row("rmsprop", {"lr": 0.005}, {"decay": -0.1}, watches=False, scheduled=False),
    Row("kfac", {"lr": 0.1, "damping": 0.03}, {"damping": 0.0, "inverse_interval": 0}),
    Row("ekfac", {"lr": 0.1, "damping": 0.03}, {"decay": 1.5}, valley=0.3),
    Row("tnt", {"lr": 0.1, "damping": 0.3}, {"statistics_interval": 1.5}),
    Row("shampoo", {"lr": 0.02, "damping": 1e-2, "inverse_interval": 5}, {"momentum": 1.0}, watches=False),
    Row("block-fisher", {"lr": 0.1, "damping": 0.3, "inverse_interval": 5}, {"weight_decay": -1.0}),
]
