"""What the package refuses, and that it is found by its entry point."""

from __future__ import annotations

import doctest
from pathlib import Path

import curvlab_recurrent  # noqa: F401 - registers the adapters
import pytest
import torch
from torch import Tensor, nn

from curvlab.capture.survey import survey
from curvlab.errors import UnsupportedLayer
from curvlab.layers.layer import Unrolled, adapt
from curvlab.plugins import load

N, IN, HIDDEN = 5, 3, 6


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("base", [nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_subclass_with_its_own_forward_is_refused(base: type[nn.Module]) -> None:
    own = type("Own", (base,), {"forward": lambda self, x: base.forward(self, x)[0]})
    with pytest.raises(UnsupportedLayer, match=f"Own is a {base.__name__} with a forward of its own"):
        adapt(own(IN, HIDDEN))
    assert isinstance(adapt(type("Same", (base,), {})(IN, HIDDEN)), Unrolled)


@pytest.mark.parametrize("module", [nn.GRU(IN, HIDDEN), nn.LSTM(IN, HIDDEN)], ids=["gru", "lstm"])
def test_computed_weight_is_refused(module: nn.RNNBase) -> None:
    nn.utils.parametrizations.spectral_norm(module, "weight_hh_l0")
    with pytest.raises(UnsupportedLayer, match=r"'hh_l0' of a Parametrized\w+ is computed from other parameters"):
        adapt(module)


class Unbatched(nn.Module):
    """Takes the examples of a batch for time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(IN, HIDDEN)
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.rnn(x)[0])
        return output


def test_examples_taken_for_time_steps_are_refused_and_the_rest_goes_on() -> None:
    found = survey(Unbatched().double(), random(N, IN))
    assert set(found.blocks) == {"head"}
    for name in ("rnn.ih_l0", "rnn.hh_l0"):
        assert "no axis of examples" in found.refused[name]


def test_entry_point_registers_the_plugin() -> None:
    plugin = {p.name: p for p in load("curvlab.layers")}["recurrent"]
    assert plugin.error is None
    assert plugin.module == "curvlab_recurrent"
    assert plugin.distribution.startswith("curvlab-recurrent ")


def test_readme_example_runs() -> None:
    result = doctest.testfile(str(Path(__file__).parents[1] / "README.md"), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0
