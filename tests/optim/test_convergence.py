"""Every optimizer descends: networks of every kind of layer, and a convex problem to its optimum."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from optim_rows import ROWS, Row
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.optim.core import Optimizer

pytestmark = pytest.mark.usefixtures("float64")
each = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)


def classification(n: int = 60, d: int = 4, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator)
    return x, (x @ torch.randn(d, classes, generator=generator)).argmax(1)


def steps_until(
    optimizer: Optimizer,
    loss: Callable[[], Tensor],
    enough: Callable[[float], bool],
    most: int,
    rate: Callable[[int], float],
) -> int | None:
    """Steps, `most` of them, until the loss was enough before each of five in a row: a minimum that is kept.

    `rate` gives the learning rate of a step. Methods of second order need a tenth of the steps that others do.
    """
    kept = 0
    for step in range(most):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        before = optimizer.step(loss)
        assert before is not None
        assert math.isfinite(before.item())
        kept = kept + 1 if enough(before.item()) else 0
        if kept == 5:
            return step
    return None


def network(kind: str) -> tuple[nn.Module, Tensor, Tensor]:
    """With 60 examples of three classes in the shape that it takes."""
    torch.manual_seed(0)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 3)), *classification()
    if kind == "cnn":
        x, y = classification(60, 16)
        model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3))
        return model, x.reshape(60, 1, 4, 4), y
    x, y = classification(60, 12)
    encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    return nn.Sequential(encoder, nn.Flatten(), nn.Linear(12, 3)), x.reshape(60, 3, 4), y


@each
@pytest.mark.parametrize("kind", ["mlp", "cnn", "transformer"])
def test_learns_a_small_classification(row: Row, kind: str) -> None:
    model, x, y = network(kind)

    def loss() -> Tensor:
        return F.cross_entropy(model(x), y)

    first = loss().item()
    assert steps_until(row.make(model), loss, lambda now: now < 0.5 * first, 80, lambda _: row.settings["lr"])


@each
def test_logistic_regression_reaches_the_known_optimum(row: Row) -> None:
    """The optimum by a library's own second-order solver (torch's L-BFGS) on a problem that is not separable."""
    x, y = classification()
    y = torch.where(torch.arange(len(y)) % 4 == 0, (y + 1) % 3, y)

    def loss_of(model: nn.Module) -> Tensor:
        return F.cross_entropy(model(x), y)

    best = nn.Linear(4, 3)
    solver = torch.optim.LBFGS(best.parameters(), max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def closure() -> Tensor:
        solver.zero_grad()
        loss = loss_of(best)
        loss.backward()
        return loss

    solver.step(closure)
    torch.manual_seed(1)
    model = nn.Linear(4, 3)
    start, optimum = loss_of(model).item(), loss_of(best).item()
    near = optimum + 0.02 * (start - optimum)
    rate = row.settings["lr"]
    assert steps_until(row.make(model), lambda: loss_of(model), lambda now: now < near, 400, lambda t: rate * 0.99**t)
