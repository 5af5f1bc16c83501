"""E[D²] of every parameter against autograd, one example at a time: every kind of layer, shared positions, tied
weights, padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import CASES, Case
from oracles import fisher_columns
from test_masked_positions import IGNORED, padded, without_padding
from torch import Tensor, nn

from curvlab.curvature.one_pass import Data, averages_of
from curvlab.curvatures.fisher_diagonal import FisherDiagonal
from curvlab.likelihoods import likelihood as likelihood_named

__all__ = ["padded"]  # the fixture
pytestmark = pytest.mark.usefixtures("float64")
TIGHT = 1e-10  # relative; float64 sums of a few hundred terms


def diagonal(model: nn.Module, x: Data, y: Any, likelihood: str, fisher_type: str) -> dict[str, Tensor]:
    recipe = FisherDiagonal()
    recipe.fisher_type = fisher_type
    _, (average,) = averages_of(model, x, y, likelihood_named(likelihood), [recipe], 0)
    return {name: one.state["squares"] for name, one in average.averages().items()}


def close(mine: Tensor, wanted: Tensor) -> None:
    assert mine.shape == wanted.shape
    assert mine.dtype == torch.float64
    error, scale = (mine - wanted).abs().max().item(), wanted.abs().max().item()
    assert error <= TIGHT * max(scale, 1e-12), f"{error:.3g} of {scale:.3g}"


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("fisher_type", ["type-2", "empirical"])
def test_it_is_the_mean_of_squared_gradients(case: Case, fisher_type: str) -> None:
    model, x, y = case.build()
    columns = list(fisher_columns(model, x, y, case.likelihood, fisher_type))
    found = diagonal(model, x, y, case.likelihood, fisher_type)
    assert list(found) == [name for name, _ in model.named_parameters()]
    for name, values in found.items():
        close(values, torch.stack([column[name].square().mean(0) for column in columns]).sum(0))


@pytest.mark.parametrize("name", ["tied", "conv2d-groups", "twice", "position-outputs", "embedding"])
@pytest.mark.parametrize("chunk", [1, 7, 30])
def test_gradients_are_formed_a_chunk_at_a_time(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(one for one in CASES if one.name == name)
    model, x, y = case.build()
    whole = diagonal(model, x, y, case.likelihood, "empirical")
    monkeypatch.setattr("curvlab.statistics.squared_gradients.CHUNK", chunk)
    monkeypatch.setattr("curvlab.statistics.squares_by_positions.CHUNK", chunk)
    for parameter, values in diagonal(model, x, y, case.likelihood, "empirical").items():
        close(values, whole[parameter])


class TiedReader(nn.Module):
    """A causal model of tokens whose output layer is its table."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(7, 3, padding_idx=0), nn.Linear(3, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return torch.tanh(self.mix(self.embed(input_ids))) @ self.embed.weight.T


def test_a_tied_table_with_padding() -> None:
    """What the table gets as embedding and as output layer is one gradient, and padded positions add nothing."""
    model, mask = TiedReader(), (torch.arange(5) < torch.tensor([5, 3, 1, 4])[:, None]).long()
    ids = torch.randint(1, 7, (4, 5)) * mask
    y = torch.randint(0, 7, (4, 5)).masked_fill(mask == 0, IGNORED)
    wanted: dict[str, Tensor] = {}
    for n in range(4):
        loss = nn.functional.cross_entropy(
            model(ids[n : n + 1], mask[n : n + 1])[0], y[n], ignore_index=IGNORED, reduction="sum"
        )
        named = dict(model.named_parameters())
        for name, gradient in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
            wanted[name] = wanted.get(name, 0) + gradient.square() / 4
    found = diagonal(model, {"input_ids": ids, "attention_mask": mask}, y, "categorical", "empirical")
    assert set(found) == set(wanted)
    for name in wanted:
        close(found[name], wanted[name])


def test_batches_add_up() -> None:
    model, x, y = CASES[0].build()
    whole = diagonal(model, x, y, "categorical", "empirical")
    parts = diagonal(model, [(x[:2], y[:2]), (x[2:], y[2:])], None, "categorical", "empirical")
    for name in whole:
        close(parts[name], whole[name])


def test_padding_does_not_count(padded: Any) -> None:
    model, inputs, labels = padded
    wanted: dict[str, Tensor] = {}
    for x, y in without_padding(inputs, labels):
        loss = nn.functional.cross_entropy(model(**x)["logits"][0], y[0], ignore_index=IGNORED, reduction="sum")
        named = dict(model.named_parameters())
        for name, gradient in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
            wanted[name] = wanted.get(name, 0) + gradient.square() / len(labels)
    found = diagonal(model, inputs, labels, "categorical", "empirical")
    assert set(found) == set(wanted)
    for name in wanted:
        close(found[name], wanted[name])


def test_the_square_of_a_batch_is_another_number() -> None:
    model, x, y = CASES[0].build()
    loss = nn.functional.cross_entropy(model(x), y)
    (gradient,) = torch.autograd.grad(loss, model[0].weight)
    found = diagonal(model, x, y, "categorical", "empirical")
    assert (found["0.weight"] > 1.5 * gradient.square()).all()
