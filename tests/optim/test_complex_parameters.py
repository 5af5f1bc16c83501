"""Complex parameters: first-order methods are those of torch (real and imaginary parts apart), Shampoo conjugates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from curvlab.errors import CurvlabError
from curvlab.optim import OPTIMIZERS, SGD, Adam, RMSprop, Shampoo, create
from curvlab.optim.core import Optimizer

pytestmark = pytest.mark.usefixtures("float64")
TAKES_COMPLEX = ("sgd", "adam", "adamw", "rmsprop", "shampoo")


class Holomorphic(nn.Module):
    """x ↦ W x with complex W."""

    def __init__(self, real: bool = False) -> None:
        super().__init__()
        start = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(start if real else torch.view_as_complex(start))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.weight.is_complex() else torch.view_as_complex(self.weight)
        return x @ weight.mT


def loss_of(model: nn.Module, step: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(step)
    x = torch.view_as_complex(torch.randn(9, 4, 2, generator=draw))
    y = torch.view_as_complex(torch.randn(9, 3, 2, generator=draw))
    return (model(x) - y).abs().square().sum() / 18


def trained(made: Callable[[nn.Module], Any], model: nn.Module, steps: int = 10) -> Tensor:
    optimizer = made(model)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
    weight: Tensor = model.get_parameter("weight").detach()
    return weight if weight.is_complex() else torch.view_as_complex(weight)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda m: SGD(m, lr=0.05), lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9)),
        (lambda m: Adam(m, lr=0.05), lambda m: torch.optim.Adam(m.parameters(), lr=0.05)),
    ],
    ids=["sgd", "adam"],
)
def test_steps_are_those_of_torch(ours: Callable[[nn.Module], Any], theirs: Callable[[nn.Module], Any]) -> None:
    torch.testing.assert_close(trained(ours, Holomorphic()), trained(theirs, Holomorphic()), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", [SGD, Adam, RMSprop])
def test_real_and_imaginary_parts_are_two_real_numbers(kind: Callable[..., Optimizer]) -> None:
    """As torch.optim has it, whose RMSprop starts its second moment at zero and is no oracle for ours."""

    def made(model: nn.Module) -> Optimizer:
        optimizer = kind(model, lr=0.01)
        optimizer.warm_start([lambda: loss_of(model, 77), lambda: loss_of(model, 78)])
        return optimizer

    torch.testing.assert_close(trained(made, Holomorphic()), trained(made, Holomorphic(real=True)))


def test_shampoo_conjugates() -> None:
    """The first step of G = UΣVᴴ, both factors GGᴴ and GᴴG of it alone, is U Σ(Σ² + ε)^(−1/2) Vᴴ."""
    model, eps = Holomorphic(), 1e-3
    optimizer = Shampoo(model, lr=0.1, damping=eps)
    before = model.weight.detach().clone()
    loss_of(model).backward()
    assert model.weight.grad is not None
    u, s, vh = torch.linalg.svd(model.weight.grad, full_matrices=False)
    optimizer.step()
    wanted = before - 0.1 * (u * (s / (s.square() + eps).sqrt())) @ vh
    torch.testing.assert_close(model.weight.detach(), wanted, rtol=1e-9, atol=1e-11)


def test_shampoo_takes_real_and_complex_parameters_together() -> None:
    class Both(Holomorphic):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.scale

    model = Both()
    optimizer = Shampoo(model, lr=0.01, damping=0.1, inverse_interval=1)
    first = loss_of(model)
    for _ in range(20):
        optimizer.step(lambda: loss_of(model))
    assert loss_of(model) < first
    assert model.scale.dtype == torch.float64


@pytest.mark.parametrize("name", TAKES_COMPLEX)
def test_a_state_goes_on_bit_for_bit(name: str) -> None:
    whole, resumed = Holomorphic(), Holomorphic()
    optimizer = create(name, whole)
    for step in range(3):
        optimizer.step(lambda step=step: loss_of(whole, step))  # type: ignore[misc]
    state, kept = optimizer.state_dict(), {n: v.clone() for n, v in whole.state_dict().items()}
    again = create(name, resumed)
    again.load_state_dict(state)
    resumed.load_state_dict(kept)
    optimizer.step(lambda: loss_of(whole, 3))
    again.step(lambda: loss_of(resumed, 3))
    assert torch.equal(whole.weight, resumed.weight)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in TAKES_COMPLEX])
def test_others_refuse_them_in_a_sentence(name: str) -> None:
    with pytest.raises(CurvlabError, match="'weight' is complex"):
        create(name, Holomorphic(), likelihood="gaussian")
