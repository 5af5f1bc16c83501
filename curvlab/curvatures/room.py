"""Room: how much memory one matrix of averages may take, and the form that it is kept in for it."""

from __future__ import annotations

from dataclasses import dataclass

SKETCHED = 256
"""Rows of a sketch: a row then costs about what a layer 768 wide spends on it."""
MOST_ROWS = 4096
"""Rows that are kept of a matrix too large to be written down: their Gram matrix is decomposed in seconds."""


@dataclass(frozen=True)
class Room:
    """What one matrix `[d, d]` of averages may take.

    Attributes:
        bytes: of the matrix, or of the rows that stand for it.
    """

    bytes: int = 2 * 2**30

    def square(self, width: int) -> bool:
        """Whether the matrix itself, in float64, fits."""
        return 8 * width**2 <= self.bytes

    def rows(self, width: int) -> int:
        """The most rows that are kept: fewer than columns where the matrix fits, else what their Gram matrix and the
        memory allow."""
        return width - 1 if self.square(width) else max(1, min(MOST_ROWS, self.bytes // (8 * width), width - 1))

    def sketch(self, width: int) -> int:
        """ℓ of frequent directions, which hold up to 2ℓ rows."""
        return max(1, min(SKETCHED, self.bytes // (16 * width), width // 2))

    def form(self, width: int, rows: int | None) -> tuple[int, int]:
        """(rows, columns) of what is kept of so many rows of that width; of an unknown number the most."""
        if rows is not None and rows <= self.rows(width):
            return rows, width
        return (width, width) if self.square(width) else (2 * self.sketch(width), width)
