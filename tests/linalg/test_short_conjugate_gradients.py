"""A few iterations of CG in place: the iterates of `conjugate_gradients`, and zero where numbers are not finite."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from curvlab.linalg.conjugate_gradients import conjugate_gradients
from curvlab.linalg.short_conjugate_gradients import short_conjugate_gradients

pytestmark = pytest.mark.usefixtures("float64")


def system() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    root = torch.randn(3, 7, 7)
    return root @ root.mT + 0.1 * torch.eye(7), torch.randn(3, 4, 7), torch.rand(7) + 0.5


@pytest.mark.parametrize("iterations", [0, 1, 2, 5, 7, 12])
@pytest.mark.parametrize("started", [False, True])
def test_the_iterates_are_those_of_the_careful_solver(iterations: int, started: bool) -> None:
    a, b, weights = system()
    start = torch.randn_like(b) if started else None
    careful = conjugate_gradients(lambda v: v @ a, b, lambda r: r * weights, start, max_iterations=iterations)
    r = b.clone() if start is None else b - start @ a

    def half(p: Tensor) -> tuple[Tensor, object]:
        ap = p @ a
        return (p * ap).sum(-1), lambda: ap

    x = None if start is None else start.clone()
    found = short_conjugate_gradients(half, r, lambda r: r * weights, x, iterations)  # type: ignore[arg-type]
    torch.testing.assert_close(found, careful.solution, rtol=1e-7, atol=1e-9)


def test_the_last_iteration_asks_for_no_product() -> None:
    a, b, weights = system()
    asked = []

    def half(p: Tensor) -> tuple[Tensor, object]:
        ap = p @ a

        def back() -> Tensor:
            asked.append(1)
            return ap

        return (p * ap).sum(-1), back

    short_conjugate_gradients(half, b.clone(), lambda r: r * weights, None, 3)  # type: ignore[arg-type]
    assert len(asked) == 2


def test_singular_and_spoilt_systems() -> None:
    """A zero right-hand side and a zero matrix stay at zero, NaN becomes zero, and the others do not notice."""
    a, b, weights = system()
    b[0, 0], b[1, 1, 3], a[2] = 0.0, torch.nan, 0.0

    def half(p: Tensor) -> tuple[Tensor, object]:
        ap = p @ a
        return (p * ap).sum(-1), lambda: ap

    found = short_conjugate_gradients(half, b.clone(), lambda r: r * weights, None, 20)  # type: ignore[arg-type]
    wanted = torch.linalg.solve(a[:2], b[:2].mT).mT
    assert not found[0, 0].any()
    assert not found[1, 1].any()
    assert not found[2].any()
    torch.testing.assert_close(found[0, 1:], wanted[0, 1:], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found[1, [0, 2, 3]], wanted[1, [0, 2, 3]], rtol=1e-6, atol=1e-8)
