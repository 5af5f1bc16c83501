"""What the capture must not get wrong: uses it cannot see, weights that are computed, two tapes at once, sequence
lengths that change."""

from __future__ import annotations

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curvlab import curvature
from curvlab.capture.sample import Call
from curvlab.capture.survey import survey
from curvlab.capture.tape import Tape
from curvlab.errors import CurvlabError, UnsupportedLayer
from curvlab.layers.layer import adapt

pytestmark = pytest.mark.usefixtures("float64")


class Halved(nn.Linear):
    """A Linear whose forward is not Linear's."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, 0.5 * self.weight, self.bias)


def test_a_subclass_with_its_own_forward_is_seen_by_what_it_calls() -> None:
    model = nn.Sequential(Halved(4, 3), nn.Linear(3, 2))
    found = survey(model, torch.randn(3, 4))
    assert list(found.blocks) == ["0", "1"]
    weight = torch.randn(3, 4)
    matrix = found.blocks["0"].layer.matrix({"weight": weight, "bias": torch.zeros(3)})
    assert torch.equal(matrix[0, :, :4], 0.5 * weight)
    assert not found.refused


@pytest.mark.parametrize(
    "computed",
    [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm],
    ids=["weight", "spectral"],
)
def test_computed_weights_have_the_gradients_of_every_example_and_say_so(computed: object) -> None:
    model = nn.Sequential(computed(nn.Linear(4, 3)), nn.Tanh(), nn.Linear(3, 2)).eval()
    found = survey(model, torch.randn(3, 4))
    assert not found.refused
    roads = {name: block.layer.road or "" for name, block in found.blocks.items()}
    assert roads.pop("2") == ""
    assert all("its per-example gradients alone" in road for road in roads.values())
    assert {name for name, _ in model[0].named_parameters()} == {name.removeprefix("0.") for name in roads}


def test_a_weight_used_behind_the_modules_back_is_another_use_of_it() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x) @ self.a.weight.T)

    found = survey(Tied(), torch.randn(3, 4))
    assert {name: block.tied for name, block in found.blocks.items()} == {"a": ["a.weight"], "a.weight": ["a"], "b": []}


def test_an_input_overwritten_after_use_is_an_error_not_a_wrong_number() -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            x.mul_(2.0)
            return y + self.b(x)

    with pytest.raises(CurvlabError, match="overwritten"):
        curvature.block_fisher(Overwrites(), torch.randn(3, 4), likelihood="categorical")


def test_two_tapes_on_one_model_do_not_disturb_each_other() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    x = torch.randn(3, 4)
    found = survey(model, x)
    seen: list[str] = []

    def on_call(name: str, call: Call) -> None:
        seen.append(name)

    tape = Tape(model, found.modules, on_call, None, lambda name, why: None)
    tape.run(x)
    survey(model, x)
    tape.run(x)
    assert seen == ["0", "2", "0", "2"]
    model(x)  # not recorded: only run() records
    assert len(seen) == 4
    tape.close()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_pass_leaves_no_garbage_to_collect() -> None:
    """Statistics are large: a reference cycle around them would keep them until some later garbage collection."""
    model = nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 2))
    x, y = torch.randn(50, 40), torch.randint(0, 2, (50,))
    curvature.kfac_factors(model, x, y, likelihood="categorical")
    gc.collect()
    gc.disable()
    try:
        before = sum(issubclass(type(o), Tensor) for o in gc.get_objects())
        for _ in range(3):
            curvature.kfac_factors(model, x, y, likelihood="categorical")
            curvature.tensor_normal_factors(model, x, y, likelihood="categorical", statistic="per-example")
        assert sum(issubclass(type(o), Tensor) for o in gc.get_objects()) == before
    finally:
        gc.enable()


def test_frozen_parameters_are_analysed_and_stay_frozen() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    x, y = torch.randn(5, 4), torch.randint(0, 2, (5,))
    free = curvature.kfac_factors(model, x, y, likelihood="categorical", fisher_type="type-2")
    for p in model[0].parameters():
        p.requires_grad_(False)
    frozen = curvature.kfac_factors(model, x, y, likelihood="categorical", fisher_type="type-2")
    for name, f in free.items():
        assert torch.equal(frozen[name].gradient_factor, f.gradient_factor)
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]


def test_no_grad_around_the_call_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    x, y = torch.randn(5, 4), torch.randint(0, 2, (5,))
    plain = curvature.kfac_factors(model, x, y, likelihood="categorical", fisher_type="empirical")
    with torch.no_grad():
        quiet = curvature.kfac_factors(model, x, y, likelihood="categorical", fisher_type="empirical")
    for name, f in plain.items():
        assert torch.equal(quiet[name].gradient_factor, f.gradient_factor)


def test_a_part_that_does_not_reach_the_output_has_a_zero_gradient_factor() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.unused, self.b = nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.a(x))
            self.unused(h)
            return self.b(h)

    factors = curvature.kfac_factors(Aside(), torch.randn(5, 4), torch.randint(0, 2, (5,)), likelihood="categorical")
    assert list(factors) == ["a", "unused", "b"]
    assert not factors["unused"].gradient_factor.any()
    assert factors["a"].gradient_factor.any()


def test_sequence_lengths_may_change_from_batch_to_batch() -> None:
    """A loader whose batches have different T, with a module called once per step: A sums over positions, G averages
    over rows."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step, self.out = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.zeros_like(x[:, 0])
            for t in range(x.shape[1]):
                h = torch.tanh(self.step(x[:, t] + h))
            return self.out(h)

    model = Steps()
    long, short = torch.randn(2, 5, 3), torch.randn(3, 1, 3)
    y = torch.randint(0, 2, (5,))
    both = curvature.kfac_factors(
        model, [(long, y[:2]), (short, y[2:])], likelihood="categorical", fisher_type="empirical"
    )
    parts = [
        curvature.kfac_factors(model, x, t, likelihood="categorical", fisher_type="empirical")
        for x, t in ((long, y[:2]), (short, y[2:]))
    ]
    a = (2 * parts[0]["step"].input_factor + 3 * parts[1]["step"].input_factor) / 5
    g = (10 * parts[0]["step"].gradient_factor + 3 * parts[1]["step"].gradient_factor) / 13
    assert torch.allclose(both["step"].input_factor, a)
    assert torch.allclose(both["step"].gradient_factor, g)


def test_unknown_modules_name_themselves() -> None:
    with pytest.raises(UnsupportedLayer, match="no adapter for Bilinear"):
        adapt(nn.Bilinear(2, 3, 4))
    without_plugins = adapt.dispatch(nn.Module)
    for module in (nn.LSTM(2, 3), nn.GRU(2, 3), nn.RNNCell(2, 3)):
        with pytest.raises(UnsupportedLayer, match=f"{type(module).__name__}.*curvlab-recurrent"):
            without_plugins(module)
    with pytest.raises(UnsupportedLayer, match=r"MultiheadAttention.*curvlab-attention"):
        without_plugins(nn.MultiheadAttention(4, 2))

    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.form = nn.Bilinear(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.form(x, x)

    found = survey(nn.Sequential(nn.Linear(5, 4), Square()), torch.randn(3, 5))
    assert list(found.blocks) == ["0", "1.form.weight", "1.form.bias"]
    assert "no adapter knows the operation 'bilinear'" in (found.blocks["1.form.weight"].layer.road or "")
