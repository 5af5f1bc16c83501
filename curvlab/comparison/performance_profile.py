"""ρ_a(τ) = |{p : t_pa ≤ τ · min_b t_pb}| / |P|, and geometric means of t_pb/t_pa: several races as one picture.

Performance profiles are Dolan & Moré's (2002); score and treatment of misses follow AlgoPerf (Dahl et al., 2023).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

R_MAX = 4.0
"""AlgoPerf's upper end of the integral over τ."""
Times = Mapping[str, Mapping[str, float | None]]
"""Problem -> optimizer -> time to target, None where it was missed; every problem with the same optimizers."""


@dataclass(frozen=True)
class PerformanceProfile:
    """How often each optimizer is within a factor τ of the fastest; a problem that no optimizer solves counts in |P|.

    Attributes:
        ratios: {optimizer: {problem: t_pa / min_b t_pb}}, None for a miss.
        tau: every finite ratio once, ascending, from 1 on: between them ρ is constant.
        rho: {optimizer: ρ_a at each τ}.
        score: {optimizer: 1/(r_max − 1) ∫ ρ_a(τ) dτ from 1 to r_max = 4}, from 0 to 1.
        speed_up: {a: {b: exp(mean over p of log(t_pb / t_pa))}}: above 1 where a is faster than b. A miss counts as
            `penalty`; problems that none solves, or that take no time, are left out; None when none remain.
        penalty: {problem: seconds}.
    """

    ratios: Mapping[str, Mapping[str, float | None]]
    tau: tuple[float, ...]
    rho: Mapping[str, tuple[float, ...]]
    score: Mapping[str, float]
    speed_up: Mapping[str, Mapping[str, float | None]]
    penalty: Mapping[str, float]

    def share(self, name: str, factor: float) -> float:
        """ρ_name(factor)."""
        return _share(self.ratios[name], factor)


def performance_profile(times: Times, penalty: Mapping[str, float]) -> PerformanceProfile:
    """The profile of times to target.

    Args:
        times: by problem and optimizer.
        penalty: what a miss counts as in `speed_up`, by problem: the longest time that any run was given there. It is
            a lower bound of the time that would have been needed, so that the speed-up over who missed is one too.
    """
    optimizers = list(next(iter(times.values()), {}))
    ratios = {name: {problem: _ratio(times[problem], name) for problem in times} for name in optimizers}
    finite = (ratio for row in ratios.values() for ratio in row.values() if ratio is not None)
    tau = tuple(sorted({1.0, *finite}))
    rho = {name: tuple(_share(ratios[name], factor) for factor in tau) for name in optimizers}
    return PerformanceProfile(
        ratios=ratios,
        tau=tau,
        rho=rho,
        score={name: _score(tau, rho[name]) for name in optimizers},
        speed_up={a: {b: _speed_up(times, penalty, a, b) for b in optimizers} for a in optimizers},
        penalty=dict(penalty),
    )


def _ratio(row: Mapping[str, float | None], name: str) -> float | None:
    """t_a / min_b t_b; 1 for the fastest even where it took no time, None where that makes the others infinite."""
    time, best = row[name], min((one for one in row.values() if one is not None), default=None)
    if time is None or best is None:
        return None
    return 1.0 if time == best else time / best if best > 0 else None


def _share(row: Mapping[str, float | None], factor: float) -> float:
    return sum(ratio is not None and ratio <= factor for ratio in row.values()) / len(row)


def _score(tau: tuple[float, ...], rho: tuple[float, ...]) -> float:
    """1/(r_max − 1) ∫ ρ from 1 to r_max: the area under the steps, exact."""
    ends = [min(end, R_MAX) for end in (*tau[1:], R_MAX)]
    starts = [min(start, R_MAX) for start in tau]
    return math.fsum(r * (end - start) for r, start, end in zip(rho, starts, ends, strict=True)) / (R_MAX - 1)


def _speed_up(times: Times, penalty: Mapping[str, float], a: str, b: str) -> float | None:
    logarithms = []
    for problem, row in times.items():
        if all(time is None for time in row.values()):
            continue
        mine, other = (penalty[problem] if row[name] is None else row[name] for name in (a, b))
        if mine and other:
            logarithms.append(math.log(other / mine))
    return math.exp(math.fsum(logarithms) / len(logarithms)) if logarithms else None
