"""The second sample of a step: the same batch, masks and mode; what it leaves alone; what becomes of a bad one."""

from __future__ import annotations

import copy
from itertools import count

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.errors import CurvlabError
from curvlab.optim import KBFGS, KBFGS20, KBFGSL

pytestmark = pytest.mark.usefixtures("float64")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(30, 5, generator=generator), torch.randint(0, 3, (30,), generator=generator)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [KBFGS, KBFGS20])
def test_masks_are_the_same_and_statistics_are_touched_once(kind: type[KBFGS], training: bool) -> None:
    """With lr = 0 nothing changes between the samples but what should not: s and y are zero then, bit for bit."""
    model, (x, y) = network().train(training), data()
    twin = copy.deepcopy(model)
    optimizer = kind(model, lr=0.0)
    torch.manual_seed(3)
    for _ in range(3):
        optimizer.step(lambda: F.cross_entropy(model(x), y))
    drawn = torch.get_rng_state()
    torch.manual_seed(3)
    for _ in range(3):
        twin(x)
    assert torch.equal(drawn, torch.get_rng_state())
    for (name, mine), theirs in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(mine, theirs), name
    for state in optimizer.inverses.states.values():
        assert not state["s"].any()
        assert not state["y"].any()
    assert optimizer.counters()["skipped"] == 6  # a step of length zero is no pair


def test_random_augmentation_inside_the_closure_is_repeated() -> None:
    model, (x, y) = network(), data()
    optimizer, seen = KBFGS(model, lr=0.1), []

    def closure() -> Tensor:
        noisy = x + 0.1 * torch.randn_like(x)
        seen.append(noisy)
        return F.cross_entropy(model(noisy), y)

    optimizer.step(closure)
    optimizer.step(closure)
    assert len(seen) == 4
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], seen[3])
    assert not torch.equal(seen[1], seen[2])


def test_another_batch_the_second_time_is_an_error() -> None:
    model, (x, y) = network(), data()
    rows = iter([slice(0, 10), slice(10, 20), slice(20, 30)])

    def closure() -> Tensor:
        part = next(rows)
        return F.cross_entropy(model(x[part]), y[part])

    with pytest.raises(CurvlabError, match="other inputs when it was run again"):
        KBFGS(model).step(closure)


def test_a_batch_that_is_overwritten_is_noticed() -> None:
    model, (x, y) = network(), data()
    optimizer = KBFGS(model, moment="averaged", pair_damping="double")
    optimizer.accumulate(lambda: F.cross_entropy(model(x), y))
    x.zero_()
    with pytest.raises(CurvlabError, match="other inputs"):
        optimizer.step(lambda: F.cross_entropy(model(torch.ones(30, 5)), y))


def test_it_is_taken_every_interval_th_step_alone() -> None:
    model, (x, y) = network(), data()
    optimizer, calls = KBFGSL(model, interval=3), count()
    for _ in range(7):
        optimizer.step(lambda: (next(calls), F.cross_entropy(model(x), y))[1])
    assert next(calls) == 7 + 3  # steps 0, 3 and 6


def test_a_second_sample_that_is_not_finite_teaches_nothing_and_is_counted() -> None:
    model, (x, y) = network(), data()
    optimizer = KBFGS(model)
    for _ in range(2):
        optimizer.step(lambda: F.cross_entropy(model(x), y))
    before, calls = copy.deepcopy(optimizer.inverses.states), count()
    optimizer.step(lambda: F.cross_entropy(model(x), y) * (float("nan") if next(calls) else 1.0))
    for name, state in optimizer.inverses.states.items():
        for key in ("output", "s", "y"):
            assert torch.equal(state[key], before[name][key])
    counted = optimizer.counters()
    assert (counted["pairs"], counted["non_finite"]) == (6, 2)
    loss = optimizer.step(lambda: F.cross_entropy(model(x), y))
    assert loss is not None
    assert bool(loss.isfinite())


@pytest.mark.parametrize("kind", [KBFGS, KBFGSL, KBFGS20])
def test_tiny_steps_in_float32_stay_finite(kind: type[KBFGS]) -> None:
    """sᵀy of 1e-20 and less: its square is no number of float32."""
    for rate in (1e-7, 1e-12):
        model, (x, y) = network().float(), data()
        optimizer = kind(model, lr=rate)
        for _ in range(12):
            optimizer.step(lambda: F.cross_entropy(model(x.float()), y))  # noqa: B023
        assert optimizer.skipped == 0
        for state in optimizer.inverses.states.values():
            assert all(bool(value.isfinite().all()) for value in state.values())


def test_double_gradient_joins_the_gradient_of_the_second_sample() -> None:
    """ren 2.8.3: the next step's gradient is the mean over both batches, by their sizes."""
    torch.manual_seed(0)
    model, (x, y) = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), data()
    optimizer = KBFGS(model, lr=0.1, momentum=0.0, double_gradient=True)

    def gradients(rows: slice) -> dict[str, Tensor]:
        parts = torch.autograd.grad(F.cross_entropy(model(x[rows]), y[rows]), list(model.parameters()))
        return dict(zip(dict(model.named_parameters()), parts, strict=True))

    first, second = slice(0, 10), slice(10, 30)
    optimizer.step(lambda: F.cross_entropy(model(x[first]), y[first]))
    old, new = gradients(first), gradients(second)
    direction = optimizer.direction({name: old[name] / 3 + new[name] * 2 / 3 for name in old})
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step(lambda: F.cross_entropy(model(x[second]), y[second]))
    for name, p in model.named_parameters():
        torch.testing.assert_close(p, before[name] - 0.1 * direction[name], rtol=1e-10, atol=1e-12)
    with pytest.raises(CurvlabError, match="double_gradient is True, which has an effect with interval=1 only"):
        KBFGS(model, double_gradient=True, interval=2)


def test_it_runs_under_the_autocast_of_the_step() -> None:
    model, (x, y) = network().float(), data()
    x, types = x.float(), []
    optimizer = KBFGS(model)

    def closure() -> Tensor:
        z = model(x)
        types.append(z.dtype)
        return F.cross_entropy(z, y)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        optimizer.step(closure)
    optimizer.step(closure)
    assert types == [torch.bfloat16] * 2 + [torch.float32] * 2
