"""Neurons in one tensor: what goes in comes out, who is put together, and parameters that no module owns."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.capture.survey import survey
from curvlab.curvatures.blocks import PreconditionerBlock, layer_matrices
from curvlab.optim import LNB
from curvlab.optim.lnb.neuron_stack import NeuronStack, packed

pytestmark = pytest.mark.usefixtures("float64")


def units(model: nn.Module, *shape: int) -> list[PreconditionerBlock]:
    return layer_matrices(survey(model, torch.randn(2, *shape)))


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.randn_like(p) for name, p in model.named_parameters()}


def dense(unit: PreconditionerBlock, known: dict[str, Tensor], shape: Sequence[int]) -> Tensor:
    """W̄ in the middle of zeros: outputs on top, features before the last column."""
    _, height, width = shape
    own, biased = unit.assemble(known), len(unit.parameters) > 1
    out = torch.zeros(len(own), height, width)
    first = width - 1 - (own.shape[2] - biased)
    out[:, : own.shape[1], first : first + own.shape[2]] = own
    return out


def mixture() -> nn.Sequential:
    """With and without biases, with groups, a weight stored the other way round, and one that no view rearranges."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False),
        nn.ConvTranspose2d(6, 4, 1, groups=2),
        nn.Flatten(2),
        nn.Linear(16, 3, bias=False),
        nn.Linear(3, 5),
    )


def test_what_is_joined_can_be_parted() -> None:
    model = mixture()
    found, known = units(model, 2, 4, 4), tensors(model)
    stack = NeuronStack([[unit] for unit in found])
    joined = stack.joined(known, torch.float64)
    torch.testing.assert_close(joined, torch.cat([dense(unit, known, stack.shape) for unit in found]))
    parted = stack.parted(joined)
    # Views, but for the neurons that none rearranges.
    storage = joined.untyped_storage().data_ptr()
    copied = {name for name, part in parted.items() if part.untyped_storage().data_ptr() != storage}
    assert copied == {"1.weight", "2.weight", "2.bias"}
    assert parted.keys() == stack.names == set(known)
    for name, part in parted.items():
        torch.testing.assert_close(part, known[name])
    some = {name: t for name, t in known.items() if not name.startswith("5")}
    torch.testing.assert_close(stack.joined(some, torch.float64)[-1], torch.zeros(stack.shape[1:]))


def test_neurons_join_where_padding_is_cheap() -> None:
    widths = [(8, 8), (8, 8), (9, 10), (60, 60), (1000, 4), (2, 2), (300, 300)]
    model = nn.ModuleList(nn.Linear(i, o) for i, o in widths)

    class All(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = model

        def forward(self, x: Tensor) -> Tensor:
            return sum((part(x[:, : part.in_features]).sum() for part in model), x.new_zeros(())) + 0 * x.sum(1)

    sizes = [sorted(slot[0].shape[2] - 1 for slot in stack.slots) for stack in packed([u] for u in units(All(), 1000))]
    assert sorted(sizes) == [[2, 8, 8, 9], [60], [300], [1000]]


def test_a_stack_averages_as_each_neuron_would() -> None:
    """Moments in a stack, from an M that is padded, against running means of the features themselves."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 2))
    optimizer = LNB(model, lr=0.0)
    batches = [torch.randn(30, 5) + 1 for _ in range(3)]
    for x in batches:
        optimizer.step(lambda: model(x).square().mean())  # noqa: B023
    # One stack for all three: their averages are parts of one tensor.
    assert len({own["square"].untyped_storage().data_ptr() for own in optimizer.averages.values()}) == 1
    weights = torch.tensor([0.9 ** (2 - t) for t in range(3)])
    for name, depth in (("0", 0), ("2", 2), ("4", 4)):
        features = [model[:depth](x) for x in batches]
        for key, power in (("mean", 1), ("square", 2)):
            if key == "mean" and name == "2":
                assert key not in optimizer.averages[name]
                continue
            means = torch.stack([a.pow(power).mean(0) for a in features])
            torch.testing.assert_close(optimizer.averages[name][key][0], weights @ means / weights.sum())


def test_neurons_measured_unequally_often_keep_their_own_shares() -> None:
    """A branch that a batch does not take is not averaged, nor is its count; the other one's go on."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.both = nn.Linear(4, 3), nn.Linear(4, 3), True

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.a(x)
            return y + self.b(2 * x) if self.both else y

    model, x = Branches(), torch.randn(3, 20, 4)
    optimizer = LNB(model, lr=0.0)
    for step, both in enumerate((True, False, True)):
        model.both = both
        optimizer.step(lambda: model(x[step]).square().mean())  # noqa: B023
    assert optimizer.measured == {"a": 3, "b": 2}
    means = x.mean(1)
    for name, seen, scale in (("a", (0, 1, 2), 1.0), ("b", (0, 2), 2.0)):
        weights = torch.tensor([0.9 ** (len(seen) - 1 - t) for t in range(len(seen))])
        wanted = scale * weights @ means[list(seen)] / weights.sum()
        torch.testing.assert_close(optimizer.averages[name]["mean"][0], wanted)


def test_a_direction_of_some_parameters_leaves_the_others_out() -> None:
    """Of half a neuron nothing is known but its gradient; and stacks go on as they were."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)), torch.randn(30, 5)
    optimizer = LNB(model, lr=0.01)
    optimizer.step(lambda: model(x).square().mean())
    known = tensors(model)
    whole = optimizer.direction(known)
    norms = {name: t for name, t in known.items() if name.startswith("1")}
    assert optimizer.direction(norms) == norms
    half = optimizer.direction({name: t for name, t in known.items() if name != "2.bias"})
    assert half["2.weight"] is known["2.weight"]
    torch.testing.assert_close(half["0.weight"], whole["0.weight"])
    assert not torch.allclose(whole["2.weight"], known["2.weight"])


class ByHand(nn.Module):
    """A neuron whose weight and bias belong to no layer module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.weight, self.bias = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.first(x)), self.weight, self.bias)


def test_a_parameter_used_by_hand_is_a_neuron_like_a_module() -> None:
    torch.manual_seed(0)
    by_hand, plain = ByHand(), nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    with torch.no_grad():
        for p, q in zip(plain.parameters(), [*by_hand.first.parameters(), by_hand.weight, by_hand.bias], strict=True):
            p.copy_(q)
    x, y = torch.randn(30, 5), torch.randint(0, 3, (30,))
    losses = []
    for model in (by_hand, plain):
        optimizer = LNB(model, lr=0.02)
        steps = [optimizer.step(lambda: F.cross_entropy(model(x), y)) for _ in range(4)]  # noqa: B023
        losses.append(torch.stack([loss for loss in steps if loss is not None]))
        assert set(optimizer.coverage().values()) == {"lnb"}
    torch.testing.assert_close(losses[0], losses[1])
