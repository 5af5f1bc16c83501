"""What is computed on a device is what the CPU computes, in float64: statistics, optimizers, operators, profiles.

The CPU's numbers are held against dense oracles elsewhere. Nothing here makes a tensor on the device: networks and data
are moved there, so that whatever the library makes beside them must follow. Run by `python -m benchmarks.gpu`, and not
by `make test`, except on the device of `foreign_device.py`.
"""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from cases import CASES, Case
from optim_rows import ROWS, Row
from torch import Tensor, nn
from torch.nn import functional as F

import curvlab
from curvlab import curvature
from curvlab.analyses.weights import weight_statistics
from curvlab.linalg.eigh import safe_eigh
from curvlab.linalg.eigvalsh import safe_eigvalsh
from curvlab.linalg.gram import gram
from curvlab.linalg.inverse import safe_inverse
from curvlab.linalg.roots import inverse_root

DEVICE = os.environ.get("CURVLAB_TEST_DEVICE", "cpu")
# Sums of a few hundred terms in another order; of what is inverted, times its condition number.
TIGHT, SOLVED = 1e-10, 1e-7
# Coupled Newton iterations, which a device takes where the CPU takes eigenvectors, stop at 1e-6.
ROOTS = 1e-5


@pytest.fixture(autouse=True)
def _made_on_the_cpu(float64: object) -> Iterator[None]:
    with torch.device("cpu"):
        yield


def numbers(value: Any) -> Iterator[Tensor]:
    """All tensors and floats of a nested result, on the CPU."""
    if isinstance(value, Tensor):
        yield value.detach().cpu()
    elif isinstance(value, float):
        yield torch.tensor(value)
    elif isinstance(value, dict):
        for one in value.values():
            yield from numbers(one)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from numbers(one)
    elif is_dataclass(value):
        for field in fields(value):
            yield from numbers(getattr(value, field.name))


def agree(there: Any, here: Any, tolerance: float = TIGHT) -> None:
    found, wanted = list(numbers(there)), list(numbers(here))
    assert len(found) == len(wanted) > 0
    for mine, its in zip(found, wanted, strict=True):
        assert mine.shape == its.shape
        assert mine.dtype == its.dtype
        if mine.numel():
            assert (mine - its).abs().max() <= tolerance * max(its.abs().max().item(), 1e-12)


Statistic = Callable[[nn.Module, Tensor, Tensor, str], Any]
STATISTICS: dict[str, Statistic] = {
    "moments": lambda m, x, y, kind: curvature.feature_moments(m, x),
    "kfac-mc": lambda m, x, y, kind: curvature.kfac_factors(m, x, y, likelihood=kind),
    "kfac-reduce": lambda m, x, y, kind: curvature.kfac_factors(
        m, x, y, likelihood=kind, fisher_type="type-2", kfac_approx="reduce"
    ),
    "tensor-normal": lambda m, x, y, kind: curvature.tensor_normal_factors(
        m, x, y, likelihood=kind, fisher_type="empirical", statistic="per-example"
    ),
    "block-fisher": lambda m, x, y, kind: curvature.block_fisher(m, x, y, likelihood=kind, fisher_type="type-2"),
    "ggn": lambda m, x, y, kind: curvature.ggn_product(
        m, x, y, {name: torch.ones_like(p) for name, p in m.named_parameters()}, likelihood=kind
    ),
}


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_statistics(case: Case, statistic: str) -> None:
    model, x, y = case.build()
    here = STATISTICS[statistic](model, x, y, case.likelihood)
    model, x, y = case.build()
    there = STATISTICS[statistic](model.to(DEVICE), x.to(DEVICE), y.to(DEVICE), case.likelihood)
    agree(there, here)
    assert all(t.device.type == torch.device(DEVICE).type for t in tensors(there))


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of a nested result, where they are."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | tuple | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from tensors(one)
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors(getattr(value, field.name))


def trained(row: Row, device: str) -> list[Tensor]:
    """Weights after a warm start, four steps, a reload of the state and four more, on targets that are the data's."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = torch.randn(20, 2, 3, 3).to(device), torch.randint(0, 3, (20,)).to(device)
    model = model.to(device)
    optimizer = row.make(model, **_of_the_data(row, model))
    if optimizer.warms:
        optimizer.warm_start([lambda: F.cross_entropy(model(x), y)])
    for step in range(8):
        if step == 4:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        part = slice(5 * (step % 4), 5 * (step % 4) + 5)
        optimizer.step(lambda part=part: F.cross_entropy(model(x[part]), y[part]))
    return [p.detach().cpu() for p in model.parameters()]


def _of_the_data(row: Row, model: nn.Module) -> dict[str, Any]:
    """The setting that takes the data's targets where others are drawn, since a device draws not as the CPU does."""
    known = inspect.signature(type(row.make(model))).parameters
    return (
        {"empirical": True} if "empirical" in known else {"fisher_type": "empirical"} if "fisher_type" in known else {}
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.label)
def test_optimizers(row: Row) -> None:
    agree(trained(row, DEVICE), trained(row, "cpu"), ROOTS if row.name == "shampoo" else SOLVED)


def spd(size: int) -> Tensor:
    x = torch.randn(4, 3 * size, size)
    return x.mT @ x / (3 * size) + 0.1 * torch.eye(size)


@pytest.mark.parametrize("size", [1, 7, 150])
def test_linear_algebra(size: int) -> None:
    torch.manual_seed(size)
    x, rows = spd(size), torch.randn(2, 40, size)
    agree(gram(rows.to(DEVICE)), gram(rows))
    agree(safe_eigvalsh(x.to(DEVICE)), safe_eigvalsh(x))
    found = safe_eigh(x.to(DEVICE))
    agree(found.vectors @ (found.values[..., None] * found.vectors.mT), x)
    agree(safe_inverse(x.to(DEVICE)).value, torch.linalg.inv(x), SOLVED)
    agree(inverse_root(x.to(DEVICE), 4).value, inverse_root(x, 4).value, ROOTS)


def test_weights() -> None:
    torch.manual_seed(0)
    for w in (
        torch.randn(60, 20),
        torch.randn(20, 3, 3, 3),
        torch.randn(30, 20) @ torch.diag(torch.logspace(0, -9, 20)),
    ):
        agree(weight_statistics(w.to(DEVICE)), weight_statistics(w), 1e-5)  # σ_min is known to √eps·RESOLVED


def test_profiles() -> None:
    """A profile runs on the device it is told, except on one of which its settings know nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))
    x, y = torch.randn(40, 2, 3, 3), torch.randint(0, 3, (40,))
    known = DEVICE if torch.device(DEVICE).type in ("cpu", "cuda", "mps") else "cpu"
    here, there = (
        curvlab.analyze(model, (x, y), loss="cross-entropy", dtype="float64", device=device)
        for device in ("cpu", known)
    )
    for mine, its in zip(there.layers, here.layers, strict=True):
        agree(mine, its, 1e-6)  # the smallest eigenvalues have the largest errors
