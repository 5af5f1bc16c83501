"""Elastic weight consolidation from a factor file: a second task is learned with weights that the first needs least.

    python examples/ewc.py

Task A is the digits, task B the digits with their pixels in another order. After A the loss of B gets the penalty
λ/2 Σ F (θ − θ_A)² with F the diagonal of A's Fisher (Kirkpatrick et al. 2017, eq. 3).
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import curvlab
from curvlab.data import load


def trained(
    model: nn.Module, x: Tensor, y: Tensor, steps: int, penalty: Callable[[nn.Module], Tensor | float] = lambda _: 0.0
) -> nn.Module:
    """A copy of the model after some steps of Adam on the mean loss and the penalty."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (100,))
        optimizer.zero_grad()
        (nn.functional.cross_entropy(model(x[rows]), y[rows]) + penalty(model)).backward()
        optimizer.step()
    return model


def ewc(before: nn.Module, path: Path, strength: float) -> Callable[[nn.Module], Tensor]:
    """θ ↦ strength/2 Σ F (θ − θ_A)², with F of a factor file."""
    fisher = {name: values.float() for name, values in curvlab.load_factors(path).fisher_diagonal.items()}
    anchor = {name: parameter.detach().clone() for name, parameter in before.named_parameters()}

    def penalty(model: nn.Module) -> Tensor:
        terms = [(fisher[name] * (p - anchor[name]).square()).sum() for name, p in model.named_parameters()]
        return strength / 2 * torch.stack(terms).sum()

    return penalty


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the pictures that are told right."""
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


def main(arguments: list[str] | None = None) -> None:
    """Print the accuracy on both tasks, with and without the penalty."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strength", type=float, default=300.0)
    strength = parser.parse_args(arguments).strength
    torch.manual_seed(0)
    digits = load("digits")
    order, y = torch.randperm(len(digits.x)), digits.y
    train, test = order[:1200], order[1200:]
    task_a = digits.x.flatten(1)
    task_b = task_a[:, torch.randperm(64)]
    after_a = trained(nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10)), task_a[train], y[train], 400)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "factors.safetensors"
        options = {"loss": "cross-entropy", "fisher_type": "type-2", "factors": str(path)}
        curvlab.analyze(after_a, (task_a[train], y[train]), analyses=("factors",), **options)
        penalty = ewc(after_a, path, strength)
    after_b = trained(after_a, task_b[train], y[train], 400)
    careful = trained(after_a, task_b[train], y[train], 400, penalty)
    for words, model in (("after A", after_a), ("B after A", after_b), ("B after A, EWC", careful)):
        first, second = (accuracy(model, task[test], y[test]) for task in (task_a, task_b))
        print(f"{words:15} A {first:.1%}, B {second:.1%}")
    assert accuracy(careful, task_a[test], y[test]) > accuracy(after_b, task_a[test], y[test])


if __name__ == "__main__":
    main()
