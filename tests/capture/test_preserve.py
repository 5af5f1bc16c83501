"""A look at a model leaves no trace, also when the model raises: buffers, modes and generators are as before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import curvlab
from curvlab.capture import preserve as home
from curvlab.capture.model_call import ModelCall
from curvlab.capture.preserve import generator_states, preserve
from curvlab.capture.survey import survey
from curvlab.comparison.shared_batch import SharedBatch
from curvlab.errors import CurvlabError
from curvlab.likelihoods import likelihood


class Failing(nn.Module):
    """Batch norm and dropout in train mode, a buffer that is assigned anew, a mode that is left, then an error."""

    counted: Tensor

    def __init__(self, fails: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout())
        self.register_buffer("counted", torch.zeros(1))
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        self.counted = self.counted + 1
        self.body[2].eval()
        if self.fails:
            raise RuntimeError("the model fails")
        return y


def _survey(model: nn.Module, x: Tensor) -> None:
    survey(model, x)


def _preserve(model: nn.Module, x: Tensor) -> None:
    with preserve(model):
        model(x)


def _again(model: nn.Module, x: Tensor) -> None:
    with ModelCall.of(model, (x,), {}).again(model):
        model(x)


def _moments(model: nn.Module, x: Tensor) -> None:
    curvlab.curvature.feature_moments(model, x)


def _shared(model: nn.Module, x: Tensor) -> None:
    shared = SharedBatch(model, likelihood("gaussian"), 0)
    with shared.again():
        model(x)


LOOKS = {"survey": _survey, "preserve": _preserve, "call": _again, "moments": _moments, "shared": _shared}


def state(model: Failing) -> dict[str, Tensor]:
    modes = {f"training of {name}": torch.tensor(module.training) for name, module in model.named_modules()}
    return {name: b.clone() for name, b in model.named_buffers()} | modes | generator_states(model)


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_nothing_is_left(look: Callable[[nn.Module, Tensor], None], fails: bool) -> None:
    model, x = Failing(fails), torch.randn(5, 4)
    before, held = state(model), dict(model.named_buffers())
    if fails:
        with pytest.raises((RuntimeError, CurvlabError), match="the model fails"):
            look(model, x)
    else:
        look(model, x)
    after = state(model)
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert all(b is held[name] for name, b in model.named_buffers())


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_every_gpu_of_the_model_draws_as_before(
    look: Callable[[nn.Module, Tensor], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generators of two GPUs, stood in for by numbers, for a machine that has none."""
    drawn = {"cuda:0": torch.tensor(3), "cuda:1": torch.tensor(5)}
    monkeypatch.setattr(home, "cuda_devices", lambda model: list(drawn))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: drawn[str(device)].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: drawn.update({str(device): state}))
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())

    class Drawing(Failing):
        def forward(self, x: Tensor) -> Tensor:
            for device in drawn:
                drawn[device] = drawn[device] + 1
            return super().forward(x)

    with pytest.raises((RuntimeError, CurvlabError), match="the model fails"):
        look(Drawing(), torch.randn(5, 4))
    assert {device: int(state) for device, state in drawn.items()} == {"cuda:0": 3, "cuda:1": 5}


def test_a_buffer_hidden_behind_an_attribute_of_its_name_is_found() -> None:
    """As in Keras, where `module.moving_mean` is a variable of Keras whose `value` is the buffer."""

    class Hiding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(2))
            self.__dict__["mean"] = "a variable"

    model = Hiding()
    with preserve(model):
        dict(model.named_buffers())["mean"].add_(1)
    assert model.mean == "a variable"
    assert torch.equal(dict(model.named_buffers())["mean"], torch.zeros(2))
