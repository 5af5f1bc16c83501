"""Room: how much memory one matrix of averages may take, and the form that it is kept in for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

SKETCHED = 256
"""Rows of a sketch: a row then costs about what a layer 768 wide spends on it."""
MOST_ROWS = 4096
"""Rows that are kept of a matrix too large to be written down: their Gram matrix is decomposed in seconds."""

LEAST = 2**25
"""Bytes of one matrix that are never sketched: 2,048 rows of float64."""


@dataclass(frozen=True)
class Kept:
    """What a pass keeps of one matrix, in bytes: its sum, its average where that is no view of the sum, and what is
    made for its spectrum."""

    sums: int
    average: int
    spectrum: int


@dataclass(frozen=True)
class Room:
    """What one matrix `[d, d]` of averages may take.

    Attributes:
        bytes: of the matrix, or of the rows that stand for it.
        products: type that rows are multiplied in, at least their own; sums of products are float64 wherever there are
            several.
    """

    bytes: int = 2 * 2**30
    products: torch.dtype = torch.float64

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

    def kept(self, width: int, rows: int | None, number: int = 8, *, groups: int = 1, matrices: int = 2) -> Kept:
        """What is kept of so many rows of that width; of an unknown number the most.

        Args:
            width: of the matrix.
            rows: of one group.
            number: bytes of a number in the rows.
            groups: several groups' matrices are kept whatever their size.
            matrices: how many of the size of the spectrum's are made beside it.
        """
        if rows is not None and rows < width and (groups > 1 or self.square(width) or rows <= self.rows(width)):
            return Kept(groups * number * rows * width, 0, 8 * groups * matrices * rows**2)
        if groups > 1 or self.square(width):
            square = 8 * groups * width**2
            return Kept(square, square, matrices * square)
        few = max(2 * self.sketch(width), self.rows(width) if rows is None else 0)
        return Kept(8 * few * width, 0, 8 * matrices * few**2)


def room_within(most: int) -> Room:
    """The room of a matrix that may take so many bytes: at least 32 MiB, at most 2 GiB."""
    return Room(max(LEAST, min(Room.bytes, most)))
