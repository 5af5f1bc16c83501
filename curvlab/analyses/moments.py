"""Feature moments of a layer as a result: spectrum of M, the whitening table, dead and duplicated features (lnb
3.3–3.5)."""

from __future__ import annotations

from curvlab.analyses.features import constant_features, duplicated_features, mean_energy
from curvlab.analyses.results import MomentsResult, Spectrum, Whitening
from curvlab.analyses.split_half import standard_error
from curvlab.analyses.whitening import whitening
from curvlab.layers.layer import Layer
from curvlab.statistics.feature_moments import FeatureMoments


def moments_result(layer: Layer, whole: FeatureMoments, halves: tuple[FeatureMoments, ...] = ()) -> MomentsResult:
    """The metric M = E[āāᵀ] of a layer's features before and after whitening.

    Args:
        layer: whose features.
        whole: moments over all the data.
        halves: over the two halves, for standard errors; empty for none.
    """
    second, mean = whole.operator(), whole.mean()
    table, summary = whitening(second, mean, layer.biased, whole.count)
    energy = mean_energy(second, mean)
    numbers = [_numbers(layer, half) for half in halves]
    return MomentsResult(
        count=whole.count,
        size=summary.size,
        rank=summary.rank,
        effective_rank=summary.effective_rank,
        mean_energy=energy,
        dead=int(constant_features(second, mean).sum()),
        duplicated=duplicated_features(second, mean),
        condition_number=table,
        condition_number_nonzero=summary.condition_number_nonzero,
        eigenvalues={"min": summary.min, "max": summary.max, "quantiles": summary.quantiles},
        stderr=_errors(*numbers) if len(numbers) == 2 else {},
    )


_Numbers = tuple[Whitening, Spectrum, float | None]


def _numbers(layer: Layer, half: FeatureMoments) -> _Numbers:
    second, mean = half.operator(), half.mean()
    return (*whitening(second, mean, layer.biased, half.count, levels=()), mean_energy(second, mean))


def _errors(a: _Numbers, b: _Numbers) -> dict[str, object]:
    tables = {
        name: standard_error(getattr(a[0], name), getattr(b[0], name))
        for name in ("identity", "centered", "diagonal", "lnb", "whitened")
    }
    plain = {
        name: standard_error(getattr(a[1], name), getattr(b[1], name))
        for name in ("effective_rank", "condition_number_nonzero", "max", "min")
    }
    return {"condition_number": tables, **plain, "mean_energy": standard_error(a[2], b[2])}
