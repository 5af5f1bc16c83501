"""Running sums over batches in float64: the same however the data was split (up to float64 rounding).

RunningSum: Σ x.  RunningGram: Σ r rᵀ over rows r, kept as the rows themselves while those are fewer than the matrix
    has columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.linalg.gram import gram, mirrored, upper_gram
from curvlab.operators.operator import Dense, Diagonal, Grouped, LowRank, Operator
from curvlab.shapes import Float


class RunningSum:
    """Σ x over batches. The first batch is kept as it came, uncopied and unchanged; from the second on the sum is an
    own float64."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self._owned = False

    def add(self, x: Tensor) -> None:
        """Add one batch's sum."""
        if self.total is None:
            self.total = x
        elif self._owned:
            self.total.add_(x)
        else:
            self.total, self._owned = self.total.double() + x, True

    def merge(self, other: RunningSum) -> RunningSum:
        """The sum of both."""
        merged = RunningSum()
        for part in (self, other):
            if part.total is not None:
                merged.add(part.total)
        return merged

    def mean(self, weight: float) -> Tensor:
        """Σ x / weight, in float64."""
        if self.total is None:
            raise ValueError("no batch has been added")
        return self.total.double() / weight


class RunningGram:
    """Σ r rᵀ `[g, d, d]` over rows `[g, r, d]`.

    Args:
        keep_rows: keep the rows while they are fewer than d: they need less memory, and their Gram matrix has the
            same eigenvalues.

    Attributes:
        rows: the rows kept so far, while there is no matrix.
    """

    def __init__(self, keep_rows: bool = False) -> None:
        self.keep_rows = keep_rows
        self.rows: list[Tensor] = []
        self.sum = RunningSum()

    def fits(self, count: int, width: int) -> bool:
        """Whether `count` more rows would still be fewer than `width`, so that `add_rows` keeps them."""
        return self.keep_rows and self.sum.total is None and count + sum(r.shape[1] for r in self.rows) < width

    def add_rows(self, rows: Float[Tensor, "g r d"]) -> None:
        """Add rows, to be kept or multiplied out."""
        if self.fits(rows.shape[1], rows.shape[2]):
            self.rows.append(rows)
        else:
            self.add(upper_gram(rows))

    def add(self, square: Tensor) -> None:
        """Add a product `[g, d, d]`, of which the upper triangle counts, or a diagonal `[g, d]`."""
        self.sum.add(square)
        for rows in self.rows:
            self.sum.add(upper_gram(rows))
        self.rows = []

    def merge(self, other: RunningGram) -> RunningGram:
        """The sum of both."""
        merged = RunningGram(self.keep_rows)
        merged.sum = self.sum.merge(other.sum)
        for rows in [*self.rows, *other.rows]:
            merged.add_rows(rows)
        return merged

    def mean(self, weight: float) -> Tensor:
        """Σ r rᵀ / weight in float64: `[g, d, d]`, or the diagonal `[g, d]`."""
        if self.rows:
            return gram(torch.cat(self.rows, dim=1).double()) / weight
        mean = self.sum.mean(weight)
        return mirrored(mean) if mean.ndim == 3 else mean

    def operator(self, weight: float) -> Operator:
        """Σ r rᵀ / weight in the form it is stored in: LowRank, Diagonal, Dense or Grouped."""
        if self.rows and self.rows[0].shape[0] == 1:
            return LowRank(torch.cat(self.rows, dim=1)[0], 1 / weight)
        mean = self.mean(weight)
        if mean.ndim == 2:
            return Diagonal(mean.flatten())
        return Dense(mean[0]) if mean.shape[0] == 1 else Grouped(mean)
