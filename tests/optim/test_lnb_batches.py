"""LNB's batches: both routes to the metric, micro-batches, what overflows, what is held and for how long."""

from __future__ import annotations

import copy
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.errors import CurvlabError
from curvlab.optim import LNB

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("iterations", [1, 2])
def test_both_routes_make_the_same_steps(iterations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of every kind of neuron, two micro-batches a step."""
    found = []
    for cheaper in (True, False):
        monkeypatch.setattr("curvlab.optim.lnb.neurons.moments_are_cheaper", lambda *_, c=cheaper: c)
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1),
            nn.Tanh(),
            nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False),
            nn.Tanh(),
            nn.ConvTranspose2d(4, 3, 2, stride=2),
            nn.Tanh(),
            nn.Flatten(2),
            nn.Linear(16, 4),
            nn.Flatten(),
            nn.Linear(12, 3),
        )
        generator = torch.Generator().manual_seed(1)
        x, y = torch.randn(10, 2, 4, 4, generator=generator), torch.randint(0, 3, (10,), generator=generator)
        optimizer = LNB(model, lr=0.02, iterations=iterations)
        for _ in range(4):
            optimizer.accumulate(lambda: F.cross_entropy(model(x[:4]), y[:4]))  # noqa: B023
            optimizer.step(lambda: F.cross_entropy(model(x[4:]), y[4:]))  # noqa: B023
        found.append({name: p.detach().clone() for name, p in model.named_parameters()})
    for name, p in found[0].items():
        torch.testing.assert_close(found[1][name], p, rtol=1e-9, atol=1e-11)


def test_features_that_overflow_leave_the_neuron_where_it_is() -> None:
    """float32 squares of 1e25 are infinite though gradients are not; the other neuron goes on."""
    torch.set_default_dtype(torch.float32)
    x, y = torch.randn(20, 4), torch.randint(0, 3, (20,))

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.size = nn.Linear(4, 4), nn.Linear(4, 3), 1.0

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(x * self.size) / self.size))

    model = Scaled()
    optimizer = LNB(model)
    optimizer.step(lambda: F.cross_entropy(model(x), y))
    before, averages = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.averages)
    model.size = 1e25
    optimizer.step(lambda: F.cross_entropy(model(x), y))
    assert optimizer.skipped == 0
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert torch.equal(model.a.weight, before["a.weight"])
    assert not torch.equal(model.b.weight, before["b.weight"])
    assert torch.equal(optimizer.averages["a"]["square"], averages["a"]["square"])
    model.size = 1.0
    last: Tensor | None = None
    for _ in range(5):
        last = optimizer.step(lambda: F.cross_entropy(model(x), y))
    assert last is not None
    assert bool(last.isfinite())


def test_inputs_are_let_go_when_the_next_step_looks() -> None:
    """A wide layer of few rows is known by its inputs: those of one step are held, for `direction`, and no others."""
    model, y = nn.Linear(800, 3), torch.randint(0, 3, (20,))
    optimizer = LNB(model)
    inputs: list[weakref.ref[np.ndarray]] = []

    def loss() -> Tensor:
        array = np.random.default_rng(len(inputs)).normal(size=(20, 800))
        inputs.append(weakref.ref(array))  # the array lives as long as the tensor's storage
        return F.cross_entropy(model(torch.from_numpy(array)), y)

    optimizer.accumulate(loss)
    optimizer.step(loss)
    assert [array() is not None for array in inputs] == [True, True]
    optimizer.accumulate(loss)
    assert [array() is not None for array in inputs] == [False, False, True]


def test_a_batch_that_is_overwritten_before_the_step_is_noticed() -> None:
    """A wide layer of few rows is known by its inputs until the step."""
    x, y = torch.randn(20, 800), torch.randint(0, 3, (20,))
    model = nn.Linear(800, 3)
    optimizer = LNB(model)
    optimizer.accumulate(lambda: F.cross_entropy(model(x), y))
    x.zero_()
    with pytest.raises(CurvlabError, match="overwritten"):
        optimizer.step(lambda: F.cross_entropy(model(torch.randn(20, 800)), y))


class Reading(nn.Module):
    """Three maps that read one tensor, two that read another, of sizes that are padded to one stack."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(6, 3)
        self.out, self.other = nn.Linear(7, 3), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([torch.tanh(self.query(x)) * torch.tanh(self.key(x)), self.value(x)], dim=1)
        return torch.cat([self.out(joined), self.other(joined)], dim=1)


def test_maps_that_share_an_input_step_as_if_they_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """One M for all of them, one stack for all sizes: the same steps as each by itself, with micro-batches too."""
    found = []
    for together in (True, False):
        if not together:
            monkeypatch.setattr("curvlab.optim.lnb.lnb.same_features", id)
            monkeypatch.setattr("curvlab.optim.lnb.neuron_stack.LARGE", 0)
        torch.manual_seed(0)
        model = Reading()
        x, y = torch.randn(30, 6), torch.randint(0, 5, (30,))
        optimizer = LNB(model, lr=0.02)
        for step in range(4):
            if step % 2:
                optimizer.accumulate(lambda: F.cross_entropy(model(x[:10]), y[:10]))  # noqa: B023
            optimizer.step(lambda: F.cross_entropy(model(x[10:]), y[10:]))  # noqa: B023
        # Neurons with one M have one average.
        shared = {
            name: optimizer.averages[name]["square"].data_ptr() == optimizer.averages["query"]["square"].data_ptr()
            for name in ("key", "out")
        }
        assert shared == {"key": together, "out": False}
        found.append({name: p.detach().clone() for name, p in model.named_parameters()})
    for name, p in found[0].items():
        torch.testing.assert_close(found[1][name], p, rtol=1e-9, atol=1e-11)
