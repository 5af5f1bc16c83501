"""Pieces of an output: a few positions at a time, so that products of a large vocabulary stay small."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

PIECE = 2**20
"""Numbers at once: 8 MiB of float64."""

Place = tuple[slice | int, ...]
"""Where a piece is: some examples, or some positions of one."""


def pieces(last: Tensor) -> Iterator[Place]:
    """Places `at` with `last[at]` of about `PIECE` numbers, at least one position each, that cover all of `last`.

    Args:
        last: (examples, ..., classes); its first axis of positions is cut too where one example is too large.
    """
    examples = max(1, last.shape[0])
    each = last.numel() // examples
    if each <= PIECE or last.ndim < 3:
        step = max(1, PIECE // max(1, each))
        for start in range(0, max(1, last.shape[0]), step):
            yield (slice(start, start + step),)
        return
    step = max(1, PIECE * last.shape[1] // each)
    for example in range(last.shape[0]):
        for start in range(0, last.shape[1], step):
            yield example, slice(start, start + step)
