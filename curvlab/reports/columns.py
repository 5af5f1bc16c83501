"""The columns of the terminal tables: what each shows of a row's result, and its words in the legend; in groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from curvlab.analyses.results import FopResult, MomentsResult, WeightsResult
from curvlab.operators.summary import Spectrum
from curvlab.reports.numbers import ABSENT, condition, count, shape, short, with_error


@dataclass(frozen=True)
class Column:
    """A title, what stands under it for one row (`ABSENT` where there is nothing), and the legend after the title.

    A row is a `LayerResult`, in the group `FOP` a `FopResult`.
    """

    title: str
    text: Callable[[Any], str]
    legend: str = ""
    right: bool = True


@dataclass(frozen=True)
class Group:
    """Columns that are read together."""

    title: str
    columns: tuple[Column, ...]


def _of(section: str, show: Callable[[Any], str]) -> Callable[[Any], str]:
    """`show` applied to one section of a row's result, `ABSENT` when that was not computed."""

    def text(row: Any) -> str:
        value = getattr(row, section)
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


def _form(matrix: FopResult) -> str:
    text = "full" if matrix.form == "full" else f"rank {matrix.rank}"
    return f"{text} norm" if matrix.normalized else text


def _neighbours(matrix: FopResult) -> str:
    found = () if matrix.structure is None else matrix.structure.neighbours
    return " · ".join(f"{value:+.3f}" for value in found if value is not None) or ABSENT


def _negative(matrix: FopResult) -> str:
    share = None if matrix.structure is None else matrix.structure.negative
    return ABSENT if share is None else f"{100 * share:.0f}%"


def _angle(matrix: FopResult) -> str:
    degrees = None if matrix.angle is None else matrix.angle.degrees
    return ABSENT if degrees is None else f"{short(degrees)}°"


FOP = Group(
    "FOP's learned matrices",
    (
        Column("P", _form, ": MMᵀ (full) or I + MMᵀ (rank), scaled like I (norm)", right=False),
        Column("size", lambda f: shape(f.kernel) if f.kernel else str(f.size), ": kernel, or inputs"),
        Column("λ max", _of("spectrum", lambda s: short(s.max)), ", λ min: eigenvalues of P, 1 at the start"),
        Column("λ min", _of("spectrum", lambda s: short(s.min))),
        Column("κ(P)", _of("spectrum", _spectrum), " = λmax/λmin"),
        Column("‖P‖", lambda f: short(f.norm), ": Frobenius norm"),
        Column("diagonal", _of("structure", lambda s: short(s.diagonal)), ": its mean"),
        Column("neighbours", _neighbours, ": mean weight to the next position along each axis of the kernel"),
        Column("negative", _negative, ": share of neighbouring pairs below 0, all where P whitens"),
        Column("angle", _angle, ": by how much P turns the mean gradient"),
    ),
)

GROUPS = (WEIGHTS, MOMENTS, KFAC, TNT)
"""Those whose rows are layers, in the order they are shown."""
