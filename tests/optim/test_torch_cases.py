"""What torch's own tests ask of every optimizer: schedulers, groups, odd parameters, hooks around steps, states.

The cases are those of torch/testing/_internal/common_optimizers.py and test/test_optim.py that have a meaning here, for
every row of the contract. Hooks around states and pickles are in test_torch_contract.py, complex numbers in
test_complex_parameters.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from optim_rows import ROWS, Row
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from curvlab.errors import CurvlabError
from curvlab.optim.core import Optimizer

pytestmark = pytest.mark.usefixtures("float64")
each = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
ALONE = [row for row in ROWS if not row.watches]
"""Optimizers that need gradients alone, so that `loss.backward(); step()` will do."""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3))


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    return x, (x @ torch.arange(12.0).reshape(4, 3).sin()).argmax(1)


def loss_of(model: nn.Module) -> Tensor:
    x, y = data()
    return F.cross_entropy(model(x), y)


def run(optimizer: Optimizer, model: nn.Module, steps: int) -> None:
    for _ in range(steps):
        optimizer.step(lambda: loss_of(model))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


SCHEDULERS: dict[str, Callable[[Any, float], list[Any]]] = {
    "step": lambda o, _: [lr_scheduler.StepLR(o, step_size=4, gamma=0.9)],
    "three at once": lambda o, _: [
        lr_scheduler.StepLR(o, step_size=4, gamma=0.9),
        lr_scheduler.ExponentialLR(o, gamma=0.99),
        lr_scheduler.ReduceLROnPlateau(o, patience=2),
    ],
    "warm-up": lambda o, _: [
        lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(o, 9)],
            milestones=[3],
        )
    ],
    "one cycle": lambda o, lr: [lr_scheduler.OneCycleLR(o, max_lr=lr, total_steps=12, cycle_momentum=False)],
}


@each
def test_under_every_scheduler_the_loss_goes_down(row: Row) -> None:
    """A group with a rate of its own keeps its share of the other's under schedulers that multiply."""
    for name, make in SCHEDULERS.items():
        model, lr = network(), row.settings["lr"]
        optimizer = row.make(model, groups=[{"params": ["0.weight"], "lr": lr / 2, "weight_decay": 0.01}])
        schedulers, first = make(optimizer, lr), loss_of(model).item()
        for _ in range(12):
            loss = optimizer.step(lambda: loss_of(model))  # noqa: B023
            for scheduler in schedulers:
                on_loss = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
                scheduler.step(loss) if on_loss else scheduler.step()
        assert loss_of(model).item() < first, name
        if name == "step":
            own, rest = (group["lr"] for group in optimizer.param_groups)
            assert own == pytest.approx(rest / 2) == pytest.approx(lr / 2 * 0.9**3)


@each
def test_weights_that_are_no_contiguous_tensors(row: Row) -> None:
    """Every second number of a larger tensor, and a transposed one: the steps are those of plain weights."""
    plain, strided = network(), network()
    wide = torch.zeros(5, 4, 2)
    wide[..., 0] = plain[0].weight.detach()
    strided[0].weight = nn.Parameter(wide[..., 0])
    strided[3].weight = nn.Parameter(plain[3].weight.detach().T.contiguous().T)
    assert not strided[0].weight.is_contiguous()
    assert not strided[3].weight.is_contiguous()
    # Adam over hypergradients would divide those that are rounding alone by their own size.
    settings = {"hyper_optimizer": "sgd"} if "hyper_optimizer" in row.make(network()).defaults else {}
    for model in (plain, strided):
        run(row.make(model, **settings), model, 3)
    for name, p in weights(plain).items():
        # Only the order in which products add up differs: 2^-53 times a few hundred operations of three steps.
        torch.testing.assert_close(weights(strided)[name], p, rtol=1e-9, atol=1e-11)


class Odd(nn.Module):
    """Beside layers: a scalar, a tensor with five axes, one without entries and one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale = network(), nn.Parameter(torch.tensor(1.5))
        self.five, self.none = nn.Parameter(torch.randn(2, 1, 3, 2, 2)), nn.Parameter(torch.empty(0, 4))
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self.scale + self.five.mean() + self.none.sum()


@each
def test_scalars_many_axes_no_entries_and_no_use(row: Row) -> None:
    model = Odd()
    before, first = weights(model), loss_of(model).item()
    optimizer = row.make(model)
    run(optimizer, model, 8)
    assert loss_of(model).item() < first
    after = weights(model)
    assert torch.equal(after["unused"], before["unused"])
    assert not torch.equal(after["scale"], before["scale"])
    state = optimizer.state_dict()
    again = Odd()
    again.load_state_dict(model.state_dict())
    other = row.make(again)
    other.load_state_dict(copy.deepcopy(state))
    run(optimizer, model, 1)
    run(other, again, 1)
    for name, p in weights(model).items():
        torch.testing.assert_close(weights(again)[name], p, rtol=1e-9, atol=1e-11)


@each
def test_a_step_without_gradients_or_use_of_the_weights_moves_nothing(row: Row) -> None:
    """All gradients missing, then all zero; `zero_grad` either way."""
    model = network()
    optimizer = row.make(model, weight_decay=0.0)
    before = weights(model)
    if not row.watches:
        optimizer.step()
    optimizer.step(lambda: loss_of(model) * 0)
    for to_none in (True, False):
        optimizer.zero_grad(set_to_none=to_none)
    assert all(torch.equal(p, before[name]) for name, p in weights(model).items())


@pytest.mark.parametrize("row", ALONE, ids=lambda row: row.label)
def test_a_closure_and_a_backward_pass_before_the_step_are_the_same(row: Row) -> None:
    one, other = network(), network()
    with_closure, without = row.make(one), row.make(other)
    for _ in range(3):
        with_closure.step(lambda: loss_of(one))
        without.zero_grad()
        loss_of(other).backward()
        assert without.step() is None
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


@each
def test_gradients_are_on_in_a_closure_and_off_around_it(row: Row) -> None:
    model = network()
    optimizer = row.make(model)
    with torch.no_grad():
        loss = optimizer.step(lambda: loss_of(model))
        assert not torch.is_grad_enabled()
    assert loss is not None
    assert not loss.requires_grad
    assert all(p.grad is None or not p.grad.requires_grad for p in model.parameters())


@each
def test_hooks_around_steps_run_in_their_order(row: Row) -> None:
    model, said = network(), []
    optimizer = row.make(model)
    everywhere = [
        register_optimizer_step_pre_hook(lambda *_: said.append("all before")),
        register_optimizer_step_post_hook(lambda *_: said.append("all after")),
    ]
    mine = [
        optimizer.register_step_pre_hook(lambda *_: said.append("before")),
        optimizer.register_step_post_hook(lambda *_: said.append("after")),
    ]
    try:
        run(optimizer, model, 1)
    finally:
        for handle in (*everywhere, *mine):
            handle.remove()
    run(optimizer, model, 1)
    # torch 2.13 runs a single optimizer's hooks before everybody's ones; earlier versions did the opposite.
    assert sorted(said) == sorted(["all before", "before", "after", "all after"])
    assert {*said[:2]} == {"all before", "before"}


@each
def test_a_saved_state_is_the_same_twice_and_after_a_load(row: Row) -> None:
    model = network()
    optimizer = row.make(model, groups=[{"params": ["0.weight"], "lr": row.settings["lr"] / 2}])
    run(optimizer, model, 2)
    state = copy.deepcopy(optimizer.state_dict())
    assert same(optimizer.state_dict(), state)
    for groups in ([{"params": ["0.weight"]}], None):
        other = row.make(network(), groups=groups)
        other.load_state_dict(state)
        assert same(other.state_dict(), state)
        assert [len(group["params"]) for group in other.param_groups] == [1, 5]
        assert other.param_groups[0]["lr"] == row.settings["lr"] / 2


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@each
def test_a_tensor_has_one_group_and_is_in_it_once(row: Row) -> None:
    with pytest.raises(CurvlabError, match=r"'0\.weight' twice"):
        row.make(network(), groups=[{"params": ["0.weight", "0.bias", "0.weight"]}])
    with pytest.raises(ValueError, match="more than one parameter group"):
        row.make(network(), groups=[{"params": ["0.weight"]}, {"params": ["0.weight"]}])
    model = network()
    optimizer = row.make(model, groups=[{"params": []}])
    with pytest.raises(CurvlabError, match="no parameter of the model"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [model[0].weight]})
    before = loss_of(model).item()
    run(optimizer, model, 5)
    assert loss_of(model).item() < before


@each
def test_it_can_be_printed(row: Row) -> None:
    model = network()
    text = repr(row.make(model, groups=[{"params": ["0.weight"], "lr": 0.123}]))
    assert text.startswith(f"{type(row.make(model)).__name__} (\nParameter Group 0\n")
    assert "lr: 0.123" in text
    assert "Parameter Group 1" in text


class Mixed(nn.Module):
    """The first layer in float64, the others in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.net[2:].float()

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2:](self.net[:2](x).float())


@each
def test_parameters_of_two_types(row: Row) -> None:
    model = Mixed()
    before = loss_of(model).item()
    run(row.make(model), model, 8)
    assert loss_of(model).item() < before
    assert [p.dtype for p in model.parameters()] == 2 * [torch.float64] + 4 * [torch.float32]
