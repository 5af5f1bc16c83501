"""What a step of FOP multiplies: counted, compared with n·d·k per layer, and never cubic in the layer's dimension."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from curvlab.optim import FOP
from curvlab.optim.fop.learned_matrix import PROBES


def flops(layer: nn.Module, **settings: Any) -> int:
    """Of the third step, gradients given: with a hypergradient."""
    optimizer = FOP(layer, **settings)
    for _ in range(2):
        step(optimizer, layer)
    with FlopCounterMode(display=False) as counter:
        step(optimizer, layer)
    return counter.get_total_flops()


def step(optimizer: FOP, layer: nn.Module) -> None:
    for p in layer.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()


def linear(n: int, d: int) -> nn.Module:
    return nn.Linear(d, n, bias=False)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("form", "rank"), [("full", 1), ("low-rank", 1), ("low-rank", 4), ("low-rank", 200)])
@pytest.mark.parametrize(("n", "d"), [(4, 200), (200, 200), (1000, 50), (64, 64)])
def test_a_step_costs_at_most_six_products_with_the_factor(form: str, rank: int, norm: bool, n: int, d: int) -> None:
    """2 n·d·k multiplications for P g and 4 for the hypergradient, 2 flops each; a norm adds the same for the probes,
    and P g once more."""
    k = d if form == "full" else min(rank, d)
    rows = 6 * n + (2 * n + 2 * 6 * min(d, PROBES) if norm else 0)
    found = flops(linear(n, d), form=form, norm=norm, **({"rank": rank} if form == "low-rank" else {}))
    assert 0 < found <= 2 * rows * d * k


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("form", ["full", "low-rank"])
def test_the_cost_does_not_grow_with_the_cube_of_the_inputs(form: str, norm: bool) -> None:
    """Twice the inputs of a layer with few outputs: 4 times the work of the full matrix, twice that of a low rank."""
    rank = {"rank": 8} if form == "low-rank" else {}
    small, large = (flops(linear(4, d), form=form, norm=norm, **rank) for d in (512, 1024))
    assert large <= (4 if form == "full" else 2) * small


def test_no_two_matrices_of_the_layer_s_own_dimension_are_multiplied() -> None:
    """MMᵀ, or GGᵀM with GGᵀ formed, would be such a product."""

    class Shapes(TorchDispatchMode):
        found: ClassVar[list[tuple[int, ...]]] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "mm" in str(func):
                a, b = [one for one in args if isinstance(one, Tensor)][-2:]
                self.found.append((a.shape[-2], a.shape[-1], b.shape[-1]))
            return func(*args, **(kwargs or {}))

    layer = linear(199, 200)
    optimizer = FOP(layer, form="full", norm=True)
    step(optimizer, layer)
    with Shapes() as shapes:
        step(optimizer, layer)
    assert shapes.found
    assert (200, 200, 200) not in shapes.found


@pytest.mark.parametrize("norm", [False, True])
def test_square_layers_with_a_low_rank_cost_the_square(norm: bool) -> None:
    small, large = (flops(linear(d, d), form="low-rank", rank=8, norm=norm) for d in (256, 512))
    assert large <= 4 * small


def test_spatial_matrices_cost_less_than_the_gradient_has_numbers_times_the_kernel() -> None:
    layer = nn.Conv2d(32, 64, 3, bias=False)
    found = flops(layer, form="spatial")
    numbers, kernel = layer.weight.numel(), 9
    assert 0 < found <= 2 * (2 * numbers * kernel + 2 * kernel**3)  # GGᵀ and PG, and two products of 9 × 9
    assert flops(nn.Linear(30, 20), form="spatial") == 0


def test_no_product_is_repeated_for_the_direction_alone() -> None:
    layer = linear(30, 200)
    optimizer = FOP(layer, form="low-rank", rank=3)
    gradient: dict[str, Tensor] = {"weight": torch.randn(30, 200)}
    with FlopCounterMode(display=False) as counter:
        optimizer.direction(gradient)
    assert counter.get_total_flops() == 2 * 2 * 30 * 200 * 3
