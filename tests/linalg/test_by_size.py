"""Grouping by size changes the number of calls and nothing else."""

from __future__ import annotations

import torch

from curvlab.linalg.by_size import by_size
from curvlab.linalg.inverse import safe_inverse


def test_one_call_per_size_and_dtype_and_results_in_order() -> None:
    shapes = [(1, 3), (2, 5), (4, 3), (1, 5), (1, 7)]
    stacks = [torch.randn(b, d, d) for b, d in shapes] + [torch.randn(2, 3, 3).double()]
    calls = []

    def function(stack: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(tuple(stack.shape))
        return stack * 2, stack.sum((1, 2))

    results = by_size(stacks, function)
    assert sorted(calls) == [(1, 7, 7), (2, 3, 3), (3, 5, 5), (5, 3, 3)]
    for stack, (double, total) in zip(stacks, results, strict=True):
        assert torch.equal(double, stack * 2)
        assert torch.equal(total, stack.sum((1, 2)))


def test_a_failure_stays_with_its_stack() -> None:
    good, bad = torch.eye(3)[None], torch.full((2, 3, 3), float("nan"))
    (_, first), (_, second), (_, third) = by_size([good, bad, good], safe_inverse)
    assert (first.tolist(), second.tolist(), third.tolist()) == ([True], [False, False], [True])


def test_nothing_to_do() -> None:
    assert by_size([], safe_inverse) == []
