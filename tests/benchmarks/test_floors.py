"""The floors of the benchmarks: what the pieces compute, and how they add up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.floors import CONTRACTIONS, FACTORS, FLOORS, Floor, network_layers, pieces


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.rand(7, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 5))


def loss(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(z, y, reduction="sum") / len(z)


def test_a_floor_adds_the_fastest_of_each_choice_at_its_interval() -> None:
    floor = Floor(("a", ("b", "c")), "d", "e", "f")
    cost = {"a": 10.0, "b": 30.0, "c": 20.0, "d": 1.0, "e": 40.0, "f": 5.0}
    assert floor.per_step(cost, (1, 20)) == 10 + 20 + 1 + 40 / 20
    assert floor.per_step(cost, (10, 20)) == (10 + 20) / 10 + 1 + 40 / 20
    assert floor.per_step(cost, (10, 20), traffic=True) == (10 + 20 + 5) / 10 + 1 + 40 / 20


def test_the_recorded_layers_have_the_gradients_of_autograd(model: nn.Sequential, batch: torch.Tensor) -> None:
    layers = network_layers(model, loss, [batch * 0.5, batch])
    loss(model(batch), batch).backward()
    for layer, module in zip(layers, (model[0], model[2]), strict=True):
        torch.testing.assert_close(layer.gradients[-1], module.weight.grad)
        torch.testing.assert_close(layer.biases[-1], module.bias.grad)


def test_pieces_are_the_products_they_are_named_after(model: nn.Sequential, batch: torch.Tensor) -> None:
    layers = network_layers(model, loss, [batch])
    made = pieces(layers, damping=0.1)
    (first, last), n = layers, len(batch)
    torch.testing.assert_close(made["output gradients"]()[0], last.g @ last.w)
    torch.testing.assert_close(made["weight gradients"]()[1] / n, last.gradients[0])
    # The rows of a layer are ā, then g; its contractions ḠᵀḠ and ḠḠᵀ.
    torch.testing.assert_close(made[FACTORS[0]]()[1], torch.einsum("no,np->op", first.g, first.g))
    torch.testing.assert_close(made[FACTORS[1]]()[1].triu(), made[FACTORS[0]]()[1].triu())
    squares = [layer.gradients[0] for layer in layers for _ in range(2)]
    for place, (full, half) in enumerate(zip(made[CONTRACTIONS[0]](), made[CONTRACTIONS[1]](), strict=True)):
        d = squares[place]
        torch.testing.assert_close(torch.trace(full), d.square().sum())
        torch.testing.assert_close(half.triu(), full.triu())
    for inverse, factor in zip(made["A⁻¹, G⁻¹ by Cholesky"](), made[FACTORS[0]](), strict=True):
        eye = torch.eye(len(factor))
        torch.testing.assert_close(inverse @ (factor / n + 0.1 * eye), eye, atol=1e-4, rtol=0)


def test_every_piece_of_every_floor_exists_and_runs(model: nn.Sequential, batch: torch.Tensor) -> None:
    made = pieces(network_layers(model, loss, [batch]), damping=0.1)
    for piece in made.values():
        piece()
    cost = dict.fromkeys(made, 1.0)
    for floor in FLOORS.values():
        assert floor.per_step(cost, (1, 20), traffic=True) > 2
