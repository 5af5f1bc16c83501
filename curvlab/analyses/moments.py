"""Feature moments of a layer as a result: spectrum of M, the whitening tables, dead and duplicated features (lnb
3.3–3.5)."""

from __future__ import annotations

from dataclasses import fields

from curvlab.analyses.features import constant_features, duplicated_features, mean_energy
from curvlab.analyses.results import MomentsResult, Whitening
from curvlab.analyses.split_half import standard_error
from curvlab.analyses.whitening import Tables, whitening
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
    table, over_range, summary = whitening(second, mean, layer.biased, whole.count)
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
        condition_number_nonzero=over_range,
        eigenvalues={"min": summary.min, "max": summary.max, "quantiles": summary.quantiles},
        stderr=_errors(*numbers) if len(numbers) == 2 else {},
        note=None if whole.count >= summary.size else f"{whole.count} rows limit the rank of {summary.size} features",
    )


_Numbers = tuple[Tables, float | None]


def _numbers(layer: Layer, half: FeatureMoments) -> _Numbers:
    second, mean = half.operator(), half.mean()
    return whitening(second, mean, layer.biased, half.count, levels=()), mean_energy(second, mean)


def _errors(a: _Numbers, b: _Numbers) -> dict[str, object]:
    (table_a, range_a, summary_a), (table_b, range_b, summary_b) = a[0], b[0]
    plain = {
        name: standard_error(getattr(summary_a, name), getattr(summary_b, name))
        for name in ("effective_rank", "max", "min")
    }
    return {
        "condition_number": _table_errors(table_a, table_b),
        "condition_number_nonzero": _table_errors(range_a, range_b),
        **plain,
        "mean_energy": standard_error(a[1], b[1]),
    }


def _table_errors(a: Whitening, b: Whitening) -> dict[str, float | None]:
    return {field.name: standard_error(getattr(a, field.name), getattr(b, field.name)) for field in fields(Whitening)}
