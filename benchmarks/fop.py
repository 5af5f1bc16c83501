"""A training step with FOP's spatial matrices beside one of its base optimizer, on convolutional networks.

What is timed is whole steps (forward, backward, update) by closure. The weights hardly move (lr 1e-6) and inputs are
random: the cost depends on neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.timing import alternate, show
from curvlab.optim import create
from curvlab.problems.networks import all_convolutional
from curvlab.problems.registry import problem

BASES = {"sgd": "SGD-m", "adam": "Adam"}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "9 convolutions of 96 and 192 channels (fop 4.1), 32 images": (
        lambda: all_convolutional(3, (96, 192), 10),
        (32, 3, 32, 32),
        1,
    ),
    "the same, 100 images": (lambda: all_convolutional(1, (96, 192), 10), (100, 1, 8, 8), 2),
    "digits-cnn9, 100 images": (lambda: problem("digits-cnn9").build(0), (100, 1, 8, 8), 10),
    "digits-cnn, 100 images": (lambda: problem("digits-cnn").build(0), (100, 1, 8, 8), 40),
}
"""Title -> network, shape of the inputs, steps that are timed as one."""


def stepping(
    build: Callable[[], nn.Module], shape: tuple[int, ...], steps: int, name: str, **settings: Any
) -> Callable[[], None]:
    """So many steps of an optimizer on one batch."""
    torch.manual_seed(0)
    model, x, y = build(), torch.rand(*shape), torch.randint(0, 10, shape[:1])
    optimizer = create(name, model, lr=1e-6, **settings)

    def run() -> None:
        for _ in range(steps):
            optimizer.step(lambda: F.cross_entropy(model(x), y))

    return run


def measure(rounds: int) -> None:
    """A table per network and base; the base is the unit."""
    for title, (build, shape, steps) in NETWORKS.items():
        for base, called in BASES.items():
            contenders = {called: stepping(build, shape, steps, base)}
            for form in ({"form": "spatial"}, {"form": "spatial", "norm": True}):
                label = ", ".join(f"{key} {value}" for key, value in form.items())
                contenders[f"FOP on it, {label}"] = stepping(build, shape, steps, "fop", base=base, **form)
            rows = alternate(contenders, rounds if steps > 1 else max(3, rounds // 3))
            size = "×".join(map(str, shape[1:]))
            show(f"{title} of {size}, on {called} ({steps} steps at a time)", rows, {})
