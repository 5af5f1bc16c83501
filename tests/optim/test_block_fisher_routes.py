"""The block Fisher's two routes, matrices and rows of per-example gradients, are one method; memory decides."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.curvatures.block_fisher import DROPPED, BlockFisherCurvature, batches_kept
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import Count
from curvlab.errors import CurvlabError, MemoryBudgetError
from curvlab.operators.product import product
from curvlab.optim import BlockFisher

pytestmark = pytest.mark.usefixtures("float64")
SAME = {"rtol": 1e-10, "atol": 1e-12}
BUDGET = 2 * 2**20
"""Too little for the first layer's 492² numbers three times (5.5 MiB), enough for 90 rows (1.2 MiB)."""


def make(**settings: object) -> tuple[nn.Module, BlockFisher]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 12), nn.Tanh(), nn.Linear(12, 3))
    made = {"lr": 0.05, "damping": 0.05, "decay": 0.5, "inverse_interval": 1, **settings}
    return model, BlockFisher(model, "categorical", **made)  # type: ignore[arg-type]


def batches(count: int, n: int = 6) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(n, 40, generator=generator), torch.randint(0, 3, (n,), generator=generator)) for _ in range(count)
    ]


def step(model: nn.Module, optimizer: BlockFisher, x: Tensor, y: Tensor) -> None:
    optimizer.step(lambda: F.cross_entropy(model(x), y))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def some_gradient(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"averaging": "growing", "decay": 0.6},
        {"inverse_interval": 3},
        {"fisher_type": "empirical"},
        {"mc_samples": 2, "decay": 0.2},
    ],
)
def test_both_routes_take_the_same_steps(settings: dict[str, object]) -> None:
    (one, dense), (other, rows) = make(**settings), make(**settings, max_memory=BUDGET)
    for x, y in batches(6):
        step(one, dense, x, y)
        step(other, rows, x, y)
        wanted, found = (o.direction(some_gradient(m)) for m, o in ((one, dense), (other, rows)))
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], **SAME)
    for name, p in weights(one).items():
        torch.testing.assert_close(weights(other)[name], p, **SAME)
    assert set(dense.averages["0"]) == {"fisher"}
    parts = 6 * int(settings.get("mc_samples", 1))  # type: ignore[call-overload]
    assert set(rows.averages["0"]) == {"weights", *(f"rows {i}" for i in range(parts))}
    assert set(rows.averages["2"]) == {"fisher"}  # 39² numbers are fewer than its rows, and fit


def test_rows_are_the_dense_solve_of_the_average() -> None:
    """F = Σ w_s/N_s Σ_n vec vecᵀ by autograd, one example at a time, unequal batches, one of them in two parts."""
    model, optimizer = make(lr=0.0, fisher_type="empirical", max_memory=BUDGET)
    parts = [(x[:n], y[:n]) for (x, y), n in zip(batches(3), (4, 6, 5), strict=True)]
    step(model, optimizer, *parts[0])
    step(model, optimizer, *parts[1])
    x, y = parts[2]
    optimizer.accumulate(lambda: F.cross_entropy(model(x[:2]), y[:2]))
    step(model, optimizer, x[2:], y[2:])
    fisher = torch.zeros(492, 492)
    for share, (xs, ys) in zip((0.25, 0.25, 0.5), parts, strict=True):
        for n in range(len(xs)):
            g = torch.autograd.grad(F.cross_entropy(model(xs[n : n + 1]), ys[n : n + 1]), list(model[0].parameters()))
            row = torch.cat([g[0], g[1][:, None]], dim=1).flatten()
            fisher += share / len(xs) * torch.outer(row, row)
    gradient = some_gradient(model)
    joined = torch.cat([gradient["0.weight"], gradient["0.bias"][:, None]], dim=1)
    wanted = torch.linalg.solve(fisher + 0.05 * torch.eye(492), joined.flatten()).reshape(12, 41)
    direction = optimizer.direction(gradient)
    torch.testing.assert_close(direction["0.weight"], wanted[:, :40], **SAME)
    torch.testing.assert_close(direction["0.bias"], wanted[:, 40], **SAME)


def test_a_warm_start_is_the_mean_on_both_routes() -> None:
    (one, dense), (other, rows) = make(), make(max_memory=BUDGET)
    for model, optimizer in ((one, dense), (other, rows)):
        optimizer.warm_start([lambda x=x, y=y, m=model: F.cross_entropy(m(x), y) for x, y in batches(5)])
    torch.testing.assert_close(rows.averages["0"]["weights"], torch.full((5,), 0.2))
    wanted, found = dense.direction(some_gradient(one)), rows.direction(some_gradient(other))
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], **SAME)


def test_old_batches_are_let_go_when_they_hardly_count() -> None:
    """After 30 steps under β = 0.5, 2⁻¹⁴ < 1e-4 leaves the last 14; they keep their weights, to the last bit."""
    model, optimizer = make(max_memory=BUDGET)
    for x, y in batches(30):
        step(model, optimizer, x, y)
    assert batches_kept(0.5, 1) == 15
    kept = optimizer.averages["0"]["weights"]
    assert len(kept) == 14
    assert set(optimizer.averages["0"]) == {"weights", *(f"rows {i}" for i in range(14))}
    assert torch.equal(kept, 0.5 ** torch.arange(14, 0, -1.0))
    assert 1 - kept.sum() < DROPPED


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.99])
def test_how_many_batches_stay(decay: float) -> None:
    k = batches_kept(decay, 0)
    assert decay**k <= DROPPED
    assert k == 1 or decay ** (k - 1) > DROPPED


def test_parts_of_a_batch_that_never_reach_a_block_count_as_zeros() -> None:
    """6 of 8 examples came through here, in two parts: F = 1/8 Σ of them, whatever their shares."""
    first, second = torch.randn(4, 3), torch.randn(2, 3)
    block = PreconditionerBlock("block", (), {}, (3,))
    curvature = BlockFisherCurvature()
    state = curvature.merge({}, curvature.average(block, {"rows 0": first, "rows 1": second}, Count(8)), 0.0)
    (operator,) = curvature.operators([block], [state], [{"damping": 1.0}])
    assert operator is not None
    rows = torch.cat([first, second])
    wanted = torch.linalg.solve(rows.mT @ rows / 8 + torch.eye(3), torch.eye(3))
    torch.testing.assert_close(product(operator, torch.eye(3)), wanted)


def test_no_more_blocks_become_rows_than_the_budget_asks_for() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 12), nn.Tanh(), nn.Linear(12, 30), nn.Tanh(), nn.Linear(30, 3))
    for budget, expected in (
        (100, {"0": False, "2": False}),
        (6, {"0": True, "2": False}),
        (3, {"0": True, "2": True}),
    ):
        optimizer = BlockFisher(model, "categorical", lr=0.0, decay=0.5, inverse_interval=1, max_memory=budget * 2**20)
        step(model, optimizer, *batches(1)[0])
        assert {name: "weights" in optimizer.averages[name] for name in expected} == expected


def test_too_little_memory_for_both_is_an_error_with_both_sizes() -> None:
    """3d² numbers against 3rd + 3r², d = 492 and 39, r = 6 examples of 15 batches."""
    dense = sum(3 * 8 * d**2 for d in (492, 39)) / 2**20
    rows = sum(3 * 8 * 90 * (d + 90) for d in (492, 39)) / 2**20
    model, optimizer = make(max_memory=2**20)
    before = weights(model)
    for _ in range(2):  # not only at the first step
        with pytest.raises(MemoryBudgetError) as caught:
            step(model, optimizer, *batches(1)[0])
        sizes = f"take {dense:.3g} MiB as matrices and {rows:.3g} MiB as the gradients of 90 examples"
        assert sizes in str(caught.value)
        assert "the budget is 1 MiB" in str(caught.value)
        assert "raise max_memory" in str(caught.value)
    assert all(torch.equal(p, before[name]) for name, p in weights(model).items())


def test_rows_that_outgrow_the_budget_are_an_error() -> None:
    """A warm start keeps every batch: 60 of them are 360 examples."""
    model, optimizer = make(max_memory=BUDGET)
    with pytest.raises(MemoryBudgetError, match=r"the gradients of 1\d\d examples: the budget is 2 MiB"):
        optimizer.warm_start([lambda x=x, y=y: F.cross_entropy(model(x), y) for x, y in batches(60)])


def test_max_memory_is_checked() -> None:
    with pytest.raises(CurvlabError, match="block-fisher: max_memory is 0"):
        make(max_memory=0)


def test_rows_survive_a_state_round_trip_bit_for_bit(tmp_path: Path) -> None:
    data = batches(40)
    whole, straight = make(max_memory=BUDGET, inverse_interval=4)
    for x, y in data[:21]:
        step(whole, straight, x, y)
    torch.save(straight.state_dict(), tmp_path / "state.pt")
    resumed, optimizer = make(max_memory=BUDGET, inverse_interval=4)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for x, y in data[21:]:
        step(whole, straight, x, y)
        step(resumed, optimizer, x, y)
    assert all(torch.equal(p, weights(whole)[name]) for name, p in weights(resumed).items())
    assert optimizer.averages["0"].keys() == straight.averages["0"].keys()


def test_a_batch_that_is_not_finite_leaves_the_rows_alone() -> None:
    model, optimizer = make(max_memory=BUDGET)
    (x, y), (bad, _) = batches(2)
    step(model, optimizer, x, y)
    before = {key: value.clone() for key, value in optimizer.averages["0"].items()}
    bad[0, 0] = float("nan")
    step(model, optimizer, bad, y)
    assert optimizer.averages["0"].keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in optimizer.averages["0"].items())
