"""The analysis `moments`: the spectrum of a layer's metric M = E[āāᵀ], the whitening tables, dead and duplicated
features (LNB, sections 3.3–3.5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from curvlab.analyses.condition_figure import bar, condition_figure
from curvlab.analyses.definition import LayerAnalysis
from curvlab.analyses.features import constant_features, duplicated_features, mean_energy
from curvlab.analyses.layer_data import LayerData, LayerStatistics
from curvlab.analyses.name_patterns import named
from curvlab.analyses.needs import Needs
from curvlab.analyses.question import Question, infinite
from curvlab.analyses.ranking import Rank, Ranking, Rankings, by_condition, by_number
from curvlab.analyses.registry import register
from curvlab.analyses.split_half import standard_error
from curvlab.analyses.whitening import Tables, Whitening, whitening
from curvlab.curvatures.input_moments import InputMoments
from curvlab.document.figure import Figure
from curvlab.document.numbers import ABSENT, condition, count, short, with_error
from curvlab.document.table import Quantity
from curvlab.layers.layer import Layer
from curvlab.operators.operator import Operator

if TYPE_CHECKING:
    from curvlab.analyses.results import Analysis
    from curvlab.analyses.settings import Settings
    from curvlab.formats.checkpoint import Checkpoint


EXPERT = re.compile(r"(?:^|[._])experts?(?:[._]|$)")
"""What the name of an expert has in it: which rows it is given is a router's choice."""


@dataclass(frozen=True)
class MomentsResult:
    """Distribution of a layer's input features: M = E[āāᵀ] before and after whitening.

    `condition_number_nonzero` is over the range of each matrix: λ_max over the least eigenvalue that is not zero by
    the rule of `Spectrum`, features without energy (for `centered` and `lnb`: without variance) dropped. Where
    `condition_number` exists the two are equal. `tokens` are the rows that an expert was given by its router; None for
    other layers.
    """

    count: int
    size: int
    rank: int
    effective_rank: float | None
    mean_energy: float | None
    dead: int
    duplicated: int
    condition_number: Whitening
    condition_number_nonzero: Whitening
    eigenvalues: Mapping[str, Any]
    stderr: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None
    tokens: int | None = None


def moments_result(
    layer: Layer, whole: LayerStatistics, halves: Sequence[LayerStatistics] = ()
) -> MomentsResult | None:
    """The metric M = E[āāᵀ] of a layer's features before and after whitening; None where it was not averaged.

    Args:
        layer: whose features.
        whole: averages over all the data.
        halves: over the two halves, for standard errors; empty for none.
    """
    moments = _moments(whole)
    if moments is None:
        return None
    second, mean = moments
    table, over_range, summary = whitening(second, mean, layer.biased, whole.rows)
    energy = mean_energy(second, mean)
    numbers = [found for half in halves if (found := _numbers(layer, half)) is not None]
    return MomentsResult(
        count=whole.rows,
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
        note=None if whole.rows >= summary.size else f"{whole.rows} rows limit the rank of {summary.size} features",
    )


def _moments(part: LayerStatistics) -> tuple[Operator, Tensor] | None:
    """E[aaᵀ] and μ of the features a, without the bias's 1."""
    average = part.average(InputMoments.name)
    return None if average is None or average.operator is None else (average.operator, average.state["mean"])


_Numbers = tuple[Tables, float | None]


def _numbers(layer: Layer, half: LayerStatistics) -> _Numbers | None:
    moments = _moments(half)
    if moments is None:
        return None
    return whitening(*moments, layer.biased, half.rows, levels=()), mean_energy(*moments)


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


def _shown(name: str) -> Callable[[MomentsResult], str]:
    """The condition number after one normalisation, with its standard error."""

    def show(moments: MomentsResult) -> str:
        value = getattr(moments.condition_number, name)
        errors = moments.stderr.get("condition_number")
        error = errors.get(name) if isinstance(errors, Mapping) else None
        return with_error(condition(value, getattr(moments.condition_number_nonzero, name)), value, error)

    return show


def _rank(name: str) -> Ranking:
    def rank(moments: MomentsResult) -> Rank:
        return by_condition(getattr(moments.condition_number, name), getattr(moments.condition_number_nonzero, name))

    return rank


@register
class Moments(LayerAnalysis):
    """The distribution of every layer's input features."""

    name = "moments"
    help = "distribution of every layer's inputs: rank, dead features, conditioning before and after normalising"
    result = MomentsResult
    by_default = True
    title = "Input features, M = E[āāᵀ]"
    quantities = (
        Quantity(
            "tokens",
            lambda m: ABSENT if m.tokens is None else count(m.tokens),
            ": rows that the router gave the expert",
        ),
        Quantity("rank", lambda m: f"{m.rank}/{m.size}", ": of M, out of its size"),
        Quantity("eff. rank", lambda m: short(m.effective_rank), " = exp(entropy of λ/Σλ)"),
        Quantity(
            "mean",
            lambda m: ABSENT if m.mean_energy is None else f"{100 * m.mean_energy:.0f}%",
            ": share of the energy that is in the mean",
        ),
        Quantity("dead", lambda m: str(m.dead), ": features that never vary"),
        Quantity("twins", lambda m: str(m.duplicated) if m.duplicated else ABSENT, ": features that copy another"),
        Quantity("κ(M)", _shown("identity"), ": what a plain gradient sees"),
        Quantity("centered", _shown("centered"), ": κ without the mean"),
        Quantity("diagonal", _shown("diagonal"), ": κ with every feature scaled to 1"),
        Quantity("lnb", _shown("lnb"), ": κ after LNB's normalisation"),
    )
    questions = (
        Question(
            "κ(M)",
            "condition_number.identity",
            lambda m: infinite(m.condition_number.identity),
            lambda m: condition(m.condition_number.identity, m.condition_number_nonzero.identity),
            " of the input features",
            ranked=_rank("identity"),
        ),
        Question(
            "rank(M)",
            "rank_share",
            lambda m: m.rank / m.size if m.size else None,
            lambda m: f"{m.rank}/{m.size}",
            ", as a share of the size",
            lowest=True,
        ),
        Question("tokens", "tokens", lambda m: m.tokens, lambda m: count(m.tokens), " of experts", lowest=True),
    )
    rankings: ClassVar[Rankings] = {
        "condition": _rank("identity"),
        "effective-rank": by_number("effective_rank"),
        "dead": by_number("dead"),
        "identity": _rank("identity"),
        "lnb": _rank("lnb"),
    }

    def needs(self, settings: Settings, checkpoint: Checkpoint) -> Needs:
        """μ and M."""
        return Needs((InputMoments(keep_rows=True),))

    def run(self, layer: LayerData) -> MomentsResult | None:
        """The moments of the layer's input features."""
        if layer.whole is None:
            return None
        found = moments_result(layer.layer, layer.whole, layer.halves)
        return replace(found, tokens=found.count) if found and EXPERT.search(layer.row.name) else found

    def notes(self, results: Mapping[str, Any]) -> Iterator[str]:
        """A sentence on the layers whose features outnumber the rows that were seen, if there are any."""
        few = [name for name, moments in results.items() if moments.note]
        if few:
            says = "rank, dead and singular factors there say as much of the data's size"
            yield f"fewer rows than features in {named(few)}: {says}"

    def figures(self, analysis: Analysis, checkpoint: Checkpoint | None) -> Iterator[Figure]:
        """Four bars per layer: before and after each normalisation."""
        layers = [layer for layer in analysis.layers if layer.moments is not None]
        normalised = {
            "as they are": "identity",
            "mean removed": "centered",
            "scaled to 1": "diagonal",
            "LNB's normalisation": "lnb",
        }
        tables = [(layer.moments.condition_number, layer.moments.condition_number_nonzero) for layer in layers]
        bars = {
            title: [bar(getattr(whole, field), getattr(part, field)) for whole, part in tables]
            for title, field in normalised.items()
        }
        figure = condition_figure(
            [layer.name for layer in layers], bars, "input features, before and after normalising"
        )
        if figure is not None:
            yield figure
