"""Ten steps of every optimizer on three problems: the loss before each step and the weights after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.optim import OPTIMIZERS, create

from .networks import Mean, drawn, filled

STEPS = 10

SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "sgd": {"": {"lr": 0.1}, "decayed": {"lr": 0.05, "momentum": 0.5, "weight_decay": 0.1}},
    "adam": {"": {"lr": 0.02}},
    "rmsprop": {"": {"lr": 0.005}},
    "kfac": {
        "": {"lr": 0.1, "damping": 0.03},
        "mvp": {"lr": 1.0, "damping": 0.1, "step_size": "mvp", "adapt_damping": True},
        "constrained": {"lr": 0.1, "damping": 0.03, "norm_constraint": 0.1, "inverse_interval": 3},
    },
    "ekfac": {"": {"lr": 0.05, "damping": 0.03}},
    "tnt": {"": {"lr": 0.03, "damping": 0.3}, "per-example": {"lr": 0.03, "damping": 0.3, "statistic": "per-example"}},
    "shampoo": {"": {"lr": 0.02, "damping": 1e-2, "inverse_interval": 3}},
    "block-fisher": {"": {"lr": 0.1, "damping": 0.3, "inverse_interval": 3}},
    "kbfgs-20": {"": {"lr": 0.3, "damping": 0.1}},
    "kbfgsl-20": {"": {"lr": 0.3, "damping": 0.1}, "proved": {"lr": 0.3, "damping": 0.2, "exact": True, "skip": True}},
    "kbfgs": {
        "": {"lr": 0.1, "damping": 0.3},
        "interval": {"lr": 0.1, "damping": 0.3, "interval": 3},
        "double": {"lr": 0.1, "damping": 0.3, "double_gradient": True},
    },
    "kbfgsl": {"": {"lr": 0.1, "damping": 0.3}},
    "lnb": {"": {"lr": 0.04}, "offline": {"lr": 0.04, "online": False, "weight_decay": 0.1}},
    "fop": {"": {"lr": 0.1}},
    "s-hd": {"": {"lr": 0.1}},
    "pp-hd": {"": {"lr": 0.1}},
}
"""Optimizer -> variant -> settings; an optimizer that is not here is recorded with its defaults."""

Problem = Callable[[], tuple[nn.Module, Callable[[nn.Module], Tensor], str]]


def perceptron() -> tuple[nn.Module, Callable[[nn.Module], Tensor], str]:
    """Classes, with a layer norm."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 3)).double()
    x = drawn(60, 4, seed=1)
    y = (x @ drawn(4, 3, seed=2)).argmax(1)
    return model, lambda net: F.cross_entropy(net(x), y), "categorical"


def convolutions() -> tuple[nn.Module, Callable[[nn.Module], Tensor], str]:
    """Regression by convolutions, one of them in groups; the loss is the Gaussian likelihood's."""
    parts = nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 2, groups=2), nn.Tanh()
    model = nn.Sequential(*parts, nn.Flatten(), nn.Linear(36, 2)).double()
    x, y = drawn(40, 2, 4, 4, seed=3), drawn(40, 2, seed=4)
    return model, lambda net: 0.5 * (net(x) - y).square().sum() / len(x), "gaussian"


def tokens() -> tuple[nn.Module, Callable[[nn.Module], Tensor], str]:
    """Labels of sequences, read by an embedding and a layer that is shared by positions."""
    parts = nn.Embedding(7, 4), nn.Linear(4, 5), nn.Tanh(), Mean(1), nn.Linear(5, 3)
    model = nn.Sequential(*parts).double()
    x = (drawn(50, 5, seed=5).abs() * 3).long().clamp(max=6)
    y = (drawn(50, 3, seed=6) > 0).double()

    def loss(net: nn.Module) -> Tensor:
        return F.binary_cross_entropy_with_logits(net(x), y, reduction="sum") / len(x)

    return model, loss, "bernoulli"


PROBLEMS: dict[str, Problem] = {"perceptron": perceptron, "convolutions": convolutions, "tokens": tokens}


def trajectories() -> Iterator[tuple[str, dict[str, Any]]]:
    """Labels, each with what the steps on every problem left."""
    for name in OPTIMIZERS:
        for variant, settings in SETTINGS.get(name, {"": {}}).items():
            runs = {key: _steps(name, settings, problem) for key, problem in PROBLEMS.items()}
            yield (f"{name}-{variant}" if variant else name), runs


def _steps(name: str, settings: dict[str, Any], problem: Problem) -> dict[str, Any]:
    torch.manual_seed(11)
    model, loss, likelihood = problem()
    filled(model)
    optimizer = create(name, model, likelihood=likelihood, **settings)
    losses, weights = [], []
    for _ in range(STEPS):
        losses.append(float(optimizer.step(lambda: loss(model))))
        weights.append({key: _summary(p.detach()) for key, p in model.named_parameters()})
    return {"losses": losses, "weights": weights}


def _summary(weight: Tensor) -> list[float]:
    """The norm, and up to eight entries spread over the tensor."""
    flat = weight.flatten()
    return [float(flat.norm()), *flat[:: max(1, len(flat) // 7)].tolist()]
