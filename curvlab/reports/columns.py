"""The columns of the terminal tables: what each shows of a layer, and its words in the legend; in groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from curvlab.analyses.results import LayerResult, MomentsResult, Spectrum, WeightsResult
from curvlab.reports.numbers import ABSENT, condition, count, shape, short, with_error


@dataclass(frozen=True)
class Column:
    """A title, what stands under it for one layer (`ABSENT` where there is nothing), and the legend after the title."""

    title: str
    text: Callable[[LayerResult], str]
    legend: str = ""
    right: bool = True


@dataclass(frozen=True)
class Group:
    """Columns that are read together."""

    title: str
    columns: tuple[Column, ...]


def _of(section: str, show: Callable[[Any], str]) -> Callable[[LayerResult], str]:
    """`show` applied to one section of a layer, `ABSENT` when that was not computed."""

    def text(layer: LayerResult) -> str:
        value = getattr(layer, section)
        return ABSENT if value is None else show(value)

    return text


def _weight(weights: WeightsResult) -> str:
    """κ(W); a weight that was too large, or is not finite, has no rank, and a κ that is unknown and not infinite."""
    return ABSENT if weights.rank is None else condition(weights.condition_number)


def _spectrum(spectrum: Spectrum | None) -> str:
    if spectrum is None:
        return ABSENT
    text = condition(spectrum.condition_number, spectrum.condition_number_nonzero)
    return with_error(text, spectrum.condition_number, spectrum.stderr.get("condition_number"))


def _whitened(name: str) -> Callable[[MomentsResult], str]:
    def show(moments: MomentsResult) -> str:
        value = getattr(moments.condition_number, name)
        errors = moments.stderr.get("condition_number")
        error = errors.get(name) if isinstance(errors, Mapping) else None
        return with_error(condition(value, getattr(moments.condition_number_nonzero, name)), value, error)

    return show


def _modes(modes: tuple[Spectrum | None, ...]) -> str:
    numbers = (ABSENT if mode is None else condition(mode.condition_number) for mode in modes)
    return " · ".join(numbers) or ABSENT


FACTS = (
    Column("kind", lambda layer: layer.kind, right=False),
    Column("shape", lambda layer: shape(layer.shape), right=False),
    Column("parameters", lambda layer: count(layer.parameters)),
)

WEIGHTS = Group(
    "Weights",
    (
        Column("σ max", _of("weights", lambda w: short(w.spectral_norm)), ": largest singular value"),
        Column("stable rank", _of("weights", lambda w: short(w.stable_rank)), " = Σσ²/σ²max"),
        Column("eff. rank", _of("weights", lambda w: short(w.effective_rank)), " = exp(entropy of σ²/Σσ²)"),
        Column("κ(W)", _of("weights", _weight), " = σmax/σmin"),
        Column("tail α", _of("weights", lambda w: short(w.tail_exponent)), ": power law of the largest σ²"),
        Column(
            "nonfinite",
            _of("weights", lambda w: count(w.nonfinite) if w.nonfinite else ABSENT),
            ": entries that are NaN or infinite",
        ),
    ),
)

MOMENTS = Group(
    "Input features, M = E[āāᵀ]",
    (
        Column("rank", _of("moments", lambda m: f"{m.rank}/{m.size}"), ": of M, out of its size"),
        Column("eff. rank", _of("moments", lambda m: short(m.effective_rank)), " = exp(entropy of λ/Σλ)"),
        Column(
            "mean",
            _of("moments", lambda m: ABSENT if m.mean_energy is None else f"{100 * m.mean_energy:.0f}%"),
            ": share of the energy that is in the mean",
        ),
        Column("dead", _of("moments", lambda m: str(m.dead)), ": features that never vary"),
        Column(
            "twins",
            _of("moments", lambda m: str(m.duplicated) if m.duplicated else ABSENT),
            ": features that copy another",
        ),
        Column("κ(M)", _of("moments", _whitened("identity")), ": what a plain gradient sees"),
        Column("centered", _of("moments", _whitened("centered")), ": κ without the mean"),
        Column("diagonal", _of("moments", _whitened("diagonal")), ": κ with every feature scaled to 1"),
        Column("lnb", _of("moments", _whitened("lnb")), ": κ after LNB's normalisation"),
    ),
)

KFAC = Group(
    "Curvature factors",
    (
        Column("κ(A)", _of("kfac", lambda k: _spectrum(k.input_factor)), " of K-FAC's input factor"),
        Column("κ(G)", _of("kfac", lambda k: _spectrum(k.gradient_factor)), " of its gradient factor"),
        Column("κ(A⊗G)", _of("kfac", lambda k: _spectrum(k.kronecker)), " of its block"),
        Column("π", _of("kfac", lambda k: short(k.pi)), " = √((tr A/dA)/(tr G/dG))"),
    ),
)

TNT = Group(
    "Curvature factors",
    (
        Column("κ of modes", _of("tnt", lambda t: _modes(t.modes)), ": of the weight's tensor-normal factors"),
        Column("κ(TN)", _of("tnt", lambda t: _spectrum(t.kronecker)), " of their block"),
    ),
)

GROUPS = (WEIGHTS, MOMENTS, KFAC, TNT)
"""In the order they are shown."""
