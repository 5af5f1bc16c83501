"""The columns of the terminal tables: what each shows of a layer, in groups that are read together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from curvlab.analyses.results import LayerResult, MomentsResult, Spectrum
from curvlab.reports.numbers import ABSENT, condition, count, shape, short, with_error


@dataclass(frozen=True)
class Column:
    """A title and what stands under it for one layer; `ABSENT` where there is nothing."""

    title: str
    text: Callable[[LayerResult], str]
    right: bool = True


@dataclass(frozen=True)
class Group:
    """Columns that are read together, and the sentence that explains them."""

    title: str
    columns: tuple[Column, ...]
    legend: str


def _of(section: str, show: Callable[[Any], str]) -> Callable[[LayerResult], str]:
    """`show` applied to one section of a layer, `ABSENT` when that was not computed."""

    def text(layer: LayerResult) -> str:
        value = getattr(layer, section)
        return ABSENT if value is None else show(value)

    return text


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
        return with_error(
            condition(value, moments.condition_number_nonzero if name == "identity" else None), value, error
        )

    return show


def _short_spectrum(spectrum: Spectrum | None) -> str:
    return ABSENT if spectrum is None else condition(spectrum.condition_number)


FACTS = (
    Column("kind", lambda layer: layer.kind, right=False),
    Column("shape", lambda layer: shape(layer.shape), right=False),
    Column("parameters", lambda layer: count(layer.parameters)),
)

WEIGHTS = Group(
    "Weights",
    (
        Column("σ max", _of("weights", lambda w: short(w.spectral_norm))),
        Column("stable rank", _of("weights", lambda w: short(w.stable_rank))),
        Column("eff. rank", _of("weights", lambda w: short(w.effective_rank))),
        Column("κ(W)", _of("weights", lambda w: condition(w.condition_number))),
        Column("tail α", _of("weights", lambda w: short(w.tail_exponent))),
        Column("nonfinite", _of("weights", lambda w: count(w.nonfinite) if w.nonfinite else ABSENT)),
    ),
    "σ: singular values of the weight as a matrix; stable rank ‖W‖²/σ²max; eff. rank exp(entropy of σ²/Σσ²); "
    "κ(W) = σmax/σmin; tail α: power law of the largest σ².",
)

MOMENTS = Group(
    "Input features, M = E[āāᵀ]",
    (
        Column("rank", _of("moments", lambda m: f"{m.rank}/{m.size}")),
        Column("eff. rank", _of("moments", lambda m: short(m.effective_rank))),
        Column("mean", _of("moments", lambda m: ABSENT if m.mean_energy is None else f"{100 * m.mean_energy:.0f}%")),
        Column("dead", _of("moments", lambda m: str(m.dead))),
        Column("twins", _of("moments", lambda m: str(m.duplicated) if m.duplicated else ABSENT)),
        Column("κ(M)", _of("moments", _whitened("identity"))),
        Column("centered", _of("moments", _whitened("centered"))),
        Column("diagonal", _of("moments", _whitened("diagonal"))),
        Column("lnb", _of("moments", _whitened("lnb"))),
    ),
    "mean: share of energy in the mean; dead: features that never vary; twins: features that copy another; "
    "κ(M) = λmax/λmin of what a plain gradient sees, then after removing the mean, after scaling each feature, "
    "after LNB's incomplete Cholesky.",
)

KFAC = Group(
    "Curvature factors",
    (
        Column("κ(A)", _of("kfac", lambda k: _spectrum(k.input_factor))),
        Column("κ(G)", _of("kfac", lambda k: _spectrum(k.gradient_factor))),
        Column("κ(A⊗G)", _of("kfac", lambda k: _spectrum(k.kronecker))),
        Column("π", _of("kfac", lambda k: short(k.pi))),
    ),
    "A, G: K-FAC's input and gradient factors; π = √((tr A/dA)/(tr G/dG)).",
)

TNT = Group(
    "Curvature factors",
    (
        Column("κ of modes", _of("tnt", lambda t: " · ".join(_short_spectrum(mode) for mode in t.modes) or ABSENT)),
        Column("κ(TN)", _of("tnt", lambda t: _spectrum(t.kronecker))),
    ),
    "TN: the tensor-normal factors of the weight, one per mode.",
)

GROUPS = (WEIGHTS, MOMENTS, KFAC, TNT)
"""In the order they are shown."""
