"""`Spectrum`: the numbers that summarise the eigenvalues of an operator, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

QUANTILE_LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Levels of every `quantiles` list; recorded in the JSON's settings."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalue summary of a symmetric positive semi-definite matrix (docs/curvature.md).

    `rank` counts eigenvalues above max(d, count)·eps·λ_max; a singular matrix has `condition_number` None and
    `condition_number_nonzero` over its range. `effective_rank` = exp(entropy of λ/Σλ). `stderr` maps the names of the
    numbers to split-half standard errors.

    `sketch_error` is None where the eigenvalues are those of the matrix itself. Else they are of a sketch of it: each
    of the matrix's is between that of the sketch and this much more. `rank` then counts the directions that the sketch
    holds, and `trace` is exact all the same.
    """

    size: int
    trace: float | None
    max: float | None
    min: float | None
    rank: int
    effective_rank: float | None
    condition_number: float | None
    condition_number_nonzero: float | None
    quantiles: tuple[float, ...] | None
    stderr: Mapping[str, float | None] = field(default_factory=dict)
    sketch_error: float | None = None
