"""Spectra of the tensor-normal factors Ũ_i of a parameter and of their Kronecker product (ren eq. 4.10), with
split-half errors."""

from __future__ import annotations

from collections.abc import Sequence

from curvlab.analyses.results import QUANTILE_LEVELS, Spectrum, TensorNormalResult
from curvlab.analyses.split_half import with_split_half
from curvlab.operators.operator import Dense, Kronecker
from curvlab.operators.spectrum import spectrum
from curvlab.statistics.plan import Collected


def tensor_normal_result(parameter: str, whole: Collected, halves: Sequence[Collected]) -> TensorNormalResult | None:
    """The tensor-normal block of one parameter; None if no gradient reached it."""
    if parameter not in whole.tensors:
        return None
    statistic = whole.tensors[parameter].statistic
    modes, both = _spectra(parameter, whole)
    if statistic == "per-example" and len(halves) == 2 and all(parameter in half.tensors for half in halves):
        (first, first_both), (second, second_both) = (_spectra(parameter, half, levels=()) for half in halves)
        modes = [with_split_half(*three) for three in zip(modes, first, second, strict=True)]
        both = with_split_half(both, first_both, second_both)
    return TensorNormalResult(statistic, tuple(modes), both)


def _spectra(
    parameter: str, part: Collected, levels: Sequence[float] = QUANTILE_LEVELS
) -> tuple[list[Spectrum], Spectrum]:
    running = part.tensors[parameter]
    factors = [Dense(u) for u in running.factors(part.examples, part.batches)]
    # Each example brings as many rows to a mode as the other modes have entries.
    size = 1
    for d in running.shape:
        size *= d
    modes = [spectrum(u, part.examples * size // u.size, levels) for u in factors]
    return modes, spectrum(Kronecker(tuple(factors)), part.examples, levels)
