"""A merge of two networks from factor files: each weight averaged by how much either network depends on it.

    python examples/fisher_merge.py

Both start from one network; one goes on with pictures whose right half is blank, the other with their left half blank.
The merge θ = (F_A θ_A + F_B θ_B) / (F_A + F_B) with the Fishers' diagonals (Matena and Raffel 2022) is compared
with (θ_A + θ_B) / 2 on held-out pictures of both kinds.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import curvlab
from curvlab.data import load

FLOOR = 1e-6
"""Added to both Fishers: where neither network depends on a weight, the average is the plain one."""


def trained(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> nn.Module:
    """A copy of the model after some steps of Adam."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (100,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return model


def fisher(model: nn.Module, x: Tensor, y: Tensor, path: Path) -> dict[str, Tensor]:
    """E[D²] of every parameter, by way of a factor file."""
    options = {"loss": "cross-entropy", "fisher_type": "type-2", "factors": str(path)}
    curvlab.analyze(model, (x, y), analyses=("factors",), **options)
    return dict(curvlab.load_factors(path).fisher_diagonal)


def merged(models: list[nn.Module], weights: list[dict[str, Tensor]] | None = None) -> nn.Module:
    """Σ w θ / Σ w, entry by entry; without weights the plain average."""
    result = copy.deepcopy(models[0])
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            thetas = torch.stack([model.get_parameter(name) for model in models]).double()
            w = torch.ones_like(thetas) if weights is None else torch.stack([one[name] for one in weights]) + FLOOR
            parameter.copy_((w * thetas).sum(0) / w.sum(0))
    return result


def accuracy(model: nn.Module, pictures: list[Tensor], y: Tensor) -> float:
    """Share that is told right, over the pictures of both tasks."""
    with torch.no_grad():
        return sum(float((model(x).argmax(1) == y).float().mean()) for x in pictures) / len(pictures)


def main(arguments: list[str] | None = None) -> None:
    """Print the accuracy of both networks and of both merges."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    digits, wins = load("digits"), 0
    left, right = digits.x.clone(), digits.x.clone()
    left[..., 4:] = right[..., :4] = 0
    whole, tasks, y = digits.x.flatten(1), [left.flatten(1), right.flatten(1)], digits.y
    seeds = parser.parse_args(arguments).seeds
    for seed in range(seeds):
        torch.manual_seed(seed)
        order = torch.randperm(len(y))
        train, test = order[:1200], order[1200:]
        start = trained(nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)), whole[train], y[train], 40)
        models = [trained(start, x[train], y[train], 300) for x in tasks]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "factors.safetensors"
            fishers = [fisher(model, x[train], y[train], path) for model, x in zip(models, tasks, strict=True)]
        found = [*models, merged(models), merged(models, fishers)]
        first, second, plain, by_fisher = (accuracy(model, [x[test] for x in tasks], y[test]) for model in found)
        print(f"seed {seed}: alone {first:.1%} and {second:.1%}, plain average {plain:.1%}, by Fisher {by_fisher:.1%}")
        wins += by_fisher > plain
    print(f"the merge by Fisher is the better one {wins} times of {seeds}")
    assert wins == seeds


if __name__ == "__main__":
    main()
