"""The contract of all optimizers, one table: settings, state, accumulation, safety. Descent: test_convergence.py."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from device_readings import Readings
from optim_rows import ROWS, Row
from optim_runs import classification, mlp, run, same, weights
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.errors import CurvlabError
from curvlab.optim import OPTIMIZERS, create

pytestmark = pytest.mark.usefixtures("float64")
each = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)


def tensors_of(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from tensors_of(one)


def test_every_optimizer_has_a_row() -> None:
    assert list(dict.fromkeys(row.name for row in ROWS)) == list(OPTIMIZERS)


@each
def test_wrong_settings_are_refused_with_a_sentence(row: Row) -> None:
    with pytest.raises(CurvlabError) as caught:
        row.make(mlp(), **row.wrong)
    for name in row.wrong:
        assert name in str(caught.value)
    with pytest.raises(CurvlabError, match="no setting 'speed'"):
        row.make(mlp(), speed=1)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(CurvlabError, match="did you mean 'kfac'"):
        create("kfca", mlp(), likelihood="categorical")


@each
def test_state_round_trip_continues_bit_for_bit(row: Row) -> None:
    x, y = classification()
    settings = {"inverse_interval": 3} if row.scheduled else {}
    whole = mlp()
    straight = row.make(whole, **settings)
    run(straight, whole, x, y, 4)
    saved, kept = copy.deepcopy(straight.state_dict()), copy.deepcopy(whole.state_dict())
    run(straight, whole, x, y, 5)

    resumed = mlp()
    resumed.load_state_dict(kept)
    optimizer = row.make(resumed, **settings)
    optimizer.load_state_dict(saved)
    run(optimizer, resumed, x, y, 5)
    assert same(weights(resumed), weights(whole))


@each
def test_state_is_plain_and_by_name(row: Row, tmp_path: object) -> None:
    model = mlp()
    optimizer = row.make(model)
    run(optimizer, model, *classification(), 2)
    state = optimizer.state_dict()
    assert set(state["state"]) == {name for name, _ in model.named_parameters()}
    torch.save(state, f"{tmp_path}/state.pt")
    loaded = torch.load(f"{tmp_path}/state.pt", weights_only=True)
    assert loaded["steps"] == 2
    with pytest.raises(CurvlabError, match="cannot be loaded"):
        row.make(model).load_state_dict({**state, "optimizer": "other"})


@each
def test_accumulation_is_one_big_batch(row: Row) -> None:
    """Unequal parts: losses are means, so that parts count by their examples; pseudo-targets are the same."""
    x, y = classification()
    big, parts = mlp(), mlp()
    one, many = row.make(big), row.make(parts)
    for _ in range(3):
        one.step(lambda: F.cross_entropy(big(x), y))
        many.accumulate(lambda: F.cross_entropy(parts(x[:17]), y[:17]))
        many.step(lambda: F.cross_entropy(parts(x[17:]), y[17:]))
    for name, p in weights(big).items():
        torch.testing.assert_close(weights(parts)[name], p, rtol=1e-9, atol=1e-11)


@each
def test_reads_nothing_from_the_device_but_the_answer_whether_all_is_finite(row: Row) -> None:
    """Steps between refreshes, on networks of 2 and of 6 layers: at most two readings, none of them per block, and no
    copy between devices."""
    for depth in (1, 5):
        torch.manual_seed(0)
        layers = [part for _ in range(depth) for part in (nn.Linear(4, 4), nn.Tanh())]
        model = nn.Sequential(*layers, nn.Linear(4, 3))
        optimizer = row.make(model, **({"inverse_interval": 3} if row.scheduled else {}))
        x, y = classification()
        run(optimizer, model, x, y, 4)  # with an interval of 3, steps 0, 1, 2 and 5 renew the operators, or 0, 3 and 6
        readings = Readings()
        with readings:
            optimizer.step(lambda: F.cross_entropy(model(x), y))  # noqa: B023
        assert readings.count <= 2, readings.found
        assert not readings.copies


@each
def test_forward_under_bfloat16_autocast(row: Row) -> None:
    """Activations and output gradients in bfloat16; statistics, operators and weights keep float32."""
    torch.set_default_dtype(torch.float32)
    x, y = classification()
    plain, model = mlp(), mlp()
    wanted = run(row.make(plain), plain, x, y, 20)
    optimizer = row.make(model)

    def loss() -> Tensor:
        z = model(x)
        assert z.dtype == torch.bfloat16
        return F.cross_entropy(z, y)

    with torch.autocast("cpu", dtype=torch.bfloat16):  # around the whole step: it must not reach the statistics
        losses = [optimizer.step(loss) for _ in range(20)]
    assert wanted[-1] < 0.9 * wanted[0]
    # bfloat16 keeps 8 bits of every activation.
    assert losses[-1] is not None
    assert abs(losses[-1].item() - wanted[-1]) < row.eight_bits * wanted[0]
    state = optimizer.state_dict()
    kept = list(tensors_of([state["state"], state.get("averages", {}), state.get("operators", {})]))
    assert kept
    assert all(t.dtype == torch.float32 for t in kept if t.is_floating_point())


@each
def test_a_state_moves_to_the_device_of_the_model(row: Row) -> None:
    model = mlp()
    optimizer = row.make(model)
    run(optimizer, model, *classification(), 2)
    elsewhere = mlp().to("meta")  # a device that every machine has
    moved = row.make(elsewhere)
    moved.load_state_dict(optimizer.state_dict())
    found = list(tensors_of(moved.state_dict()))
    assert found
    assert all(t.device.type == "meta" for t in found)


@each
def test_same_seed_same_trajectory(row: Row) -> None:
    x, y = classification()
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        model = mlp()
        run(row.make(model), model, x, y, 5)
        torch.rand(3)  # the global generator plays no part
        runs.append(weights(model))
    assert same(*runs)


@each
def test_decay_is_decoupled(row: Row) -> None:
    """W ← W − α(p + γW): with a zero gradient the weights shrink by exactly 1 − αγ, whatever the preconditioner."""
    model = mlp()
    optimizer = row.make(model, weight_decay=0.1)
    x, y = classification()
    before = weights(model)
    optimizer.step(lambda: F.cross_entropy(model(x), y) * 0)
    for name, p in weights(model).items():
        shrunk = before[name] * (1 - row.settings["lr"] ** row.power * 0.1)
        torch.testing.assert_close(p, shrunk, rtol=1e-12, atol=1e-14)


@each
def test_non_finite_gradients_change_nothing_and_are_counted(row: Row) -> None:
    model = mlp()
    optimizer = row.make(model)
    x, y = classification()
    run(optimizer, model, x, y, 2)
    before = weights(model)
    optimizer.step(lambda: F.cross_entropy(model(x), y) * float("nan"))
    assert same(weights(model), before)
    assert optimizer.skipped == 1
    losses = run(optimizer, model, x, y, 3)
    assert all(math.isfinite(loss) for loss in losses)


@each
def test_frozen_parameters_stay_and_missing_gradients_are_no_error(row: Row) -> None:
    model = mlp()
    for p in model[0].parameters():
        p.requires_grad_(False)
    model.extra = nn.Parameter(torch.ones(2))
    before = weights(model)
    optimizer = row.make(model)
    run(optimizer, model, *classification(), 3)
    after = weights(model)
    assert all(torch.equal(after[name], before[name]) for name in ("0.weight", "0.bias", "extra"))
    assert not torch.equal(after["3.weight"], before["3.weight"])


@each
def test_one_by_one_factors(row: Row) -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = row.make(model, "gaussian")
    x = torch.randn(20, 1)
    start = abs(model.weight.item() - 3)
    for _ in range(60):
        optimizer.step(lambda: 0.5 * (model(x) - 3 * x).square().sum() / len(x))
    assert abs(model.weight.item() - 3) < 0.5 * start


@each
def test_schedulers_and_groups(row: Row) -> None:
    """A zero learning rate in one group holds its parameters; a scheduler changes the groups."""
    model = mlp()
    optimizer = row.make(model, groups=[{"params": ["0.weight", "0.bias"], "lr": 0.0}])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    before = weights(model)
    run(optimizer, model, *classification(), 1)
    scheduler.step()
    after = weights(model)
    assert torch.equal(after["0.weight"], before["0.weight"])
    assert not torch.equal(after["3.weight"], before["3.weight"])
    assert optimizer.param_groups[1]["lr"] == pytest.approx(row.settings["lr"] * 0.5)
    with pytest.raises(CurvlabError, match="no such parameter"):
        row.make(model, groups=[{"params": ["nowhere"]}])


@each
def test_closures_are_checked(row: Row) -> None:
    model = mlp()
    x, y = classification()
    with pytest.raises(CurvlabError, match="scalar"):
        row.make(model).step(lambda: model(x))
    with pytest.raises(CurvlabError, match="no graph"):
        row.make(model).step(lambda: F.cross_entropy(model(x), y).detach())
    if row.watches:
        with pytest.raises(CurvlabError, match="needs a closure"):
            row.make(model).step()
        with pytest.raises(CurvlabError, match="ran the model 2 times"):
            row.make(model).step(lambda: F.cross_entropy(model(x) + model(x), y))
        with pytest.raises(CurvlabError, match="did not run the model"):
            row.make(model).step(lambda: sum(p.square().sum() for p in model.parameters()))
    else:
        optimizer = row.make(model)
        before = weights(model)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert not same(weights(model), before)


@each
def test_direction_moves_nothing(row: Row) -> None:
    model = mlp()
    x, y = classification()
    optimizer = row.make(model)
    run(optimizer, model, x, y, 2)
    before, state = weights(model), copy.deepcopy(optimizer.state_dict())
    gradients = dict(
        zip(before, torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters())), strict=True)
    )
    direction = optimizer.direction(gradients)
    assert direction.keys() == gradients.keys()
    inner = sum((direction[name] * g).sum() for name, g in gradients.items())
    assert inner > 0  # a descent direction
    assert same(weights(model), before)
    assert str(optimizer.state_dict()) == str(state)
    assert set(optimizer.coverage()) == set(before)
