"""Spectra of the tensor-normal factors Ũ_i of a parameter and of their Kronecker product (ren eq. 4.10), with
split-half errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from curvlab.analyses.results import TensorNormalResult
from curvlab.analyses.split_half import with_split_half
from curvlab.operators.operator import Dense
from curvlab.operators.spectrum import kronecker_spectra
from curvlab.operators.summary import QUANTILE_LEVELS, Spectrum
from curvlab.statistics.plan import Collected


def tensor_normal_result(parameter: str, whole: Collected, halves: Sequence[Collected]) -> TensorNormalResult | None:
    """The tensor-normal block of one parameter; None if no gradient reached it."""
    if parameter not in whole.tensors:
        return None
    statistic = whole.tensors[parameter].statistic
    spectra = _spectra(parameter, whole)
    if statistic == "per-example" and len(halves) == 2 and all(parameter in half.tensors for half in halves):
        first, second = (_spectra(parameter, half, levels=()) for half in halves)
        spectra = tuple(with_split_half(*three) for three in zip(spectra, first, second, strict=True))
    return TensorNormalResult(statistic, spectra[:-1], spectra[-1])


def _spectra(parameter: str, part: Collected, levels: Sequence[float] = QUANTILE_LEVELS) -> tuple[Spectrum, ...]:
    """Of every mode and, last, of their Kronecker product."""
    running = part.tensors[parameter]
    factors = [Dense(u) for u in running.factors(part.examples, part.batches)]
    # Each example brings as many rows to a mode as the other modes have entries.
    rows = [part.examples * math.prod(running.shape) // factor.size for factor in factors]
    return kronecker_spectra(factors, rows, levels)
