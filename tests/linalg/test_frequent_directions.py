"""Sketches of many rows against the rows themselves: no eigenvalue is overestimated, and none by more than is said."""

from __future__ import annotations

import pytest
import torch

from curvlab.linalg.frequent_directions import Directions, absorbed


def many_rows(count: int, width: int, decay: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    scales = torch.arange(1, width + 1, dtype=torch.float64) ** -decay
    return torch.randn(count, width, generator=generator, dtype=torch.float64) * scales


@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("batch", [1, 7, 90])
@pytest.mark.parametrize("size", [1, 5, 20])
def test_the_error_of_every_eigenvalue_is_between_zero_and_what_was_lost(decay: float, batch: int, size: int) -> None:
    a = many_rows(90, 30, decay)
    held = Directions(a[:0], 0.0)
    for start in range(0, len(a), batch):
        held = absorbed(held, a[start : start + batch], size)
    assert len(held.rows) <= 2 * size
    missed = torch.linalg.eigvalsh(a.T @ a - held.rows.T @ held.rows)
    slack = 1e-12 * a.square().sum().item()  # rounding of the products compared
    assert -slack < missed.min().item()
    assert missed.max().item() <= held.lost + slack
    squares = torch.linalg.svdvals(a).square()
    bounds = [squares[k:].sum().item() / (size - k) for k in range(size)]
    assert held.lost <= min(bounds) + slack


def test_as_many_rows_as_there_is_room_for_are_kept_as_they_are() -> None:
    a = many_rows(40, 30, 0.5).float()
    held = absorbed(Directions(a[:0].double(), 0.0), a, 20)
    assert held.lost == 0
    assert torch.equal(held.rows, a.double())


def test_rows_of_a_few_directions_are_never_lost() -> None:
    a = many_rows(200, 4, 0.0) @ many_rows(4, 50, 0.0)
    held = absorbed(Directions(a[:0], 0.0), a, 8)
    scale = a.square().sum().item()
    assert held.lost < 1e-12 * scale
    assert torch.allclose(held.rows.T @ held.rows, a.T @ a, rtol=0, atol=1e-11 * scale)


def test_what_is_not_a_number_stays_so() -> None:
    a = many_rows(40, 30, 0.5)
    a[3, 4] = torch.nan
    assert absorbed(Directions(a[:0], 0.0), a, 5).rows.isnan().any()
