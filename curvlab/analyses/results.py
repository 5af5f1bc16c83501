"""The frozen results of an analysis: what every report renders and what the JSON contract `curvlab.analysis/1` holds.

A number that does not exist (infinite condition number, too little data) is None, never NaN.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from curvlab.document.json import plain
from curvlab.operators.summary import Spectrum

SCHEMA = "curvlab.analysis/1"


@dataclass(frozen=True)
class WeightsResult:
    """Singular-value summary of a weight as a matrix (out, everything else); the tail is a power law of the
    eigenvalues σ²."""

    spectral_norm: float | None
    frobenius_norm: float | None
    stable_rank: float | None
    effective_rank: float | None
    condition_number: float | None
    rank: int | None
    nonfinite: int
    zeros: int
    tail_exponent: float | None
    tail_distance: float | None
    tail_start: float | None
    tail_count: int | None
    note: str | None = None


@dataclass(frozen=True)
class Whitening:
    """A condition number of the metric over ā after each normalisation (lnb 3.3, 3.5).

    In `MomentsResult.condition_number` None is infinite (singular), in `condition_number_nonzero` it is of a zero
    matrix.
    """

    identity: float | None
    centered: float | None
    diagonal: float | None
    lnb: float | None
    whitened: float | None


@dataclass(frozen=True)
class MomentsResult:
    """Distribution of a layer's input features: M = E[āāᵀ] before and after whitening.

    `condition_number_nonzero` is over the range of each matrix: λ_max over the least eigenvalue that is not zero by
    the rule of `Spectrum`, features without energy (for `centered` and `lnb`: without variance) dropped. Where
    `condition_number` exists the two are equal.
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


@dataclass(frozen=True)
class KfacResult:
    """Spectra of a layer's K-FAC factors A (input) and G (gradient) and of A ⊗ G."""

    input_factor: Spectrum | None
    gradient_factor: Spectrum | None
    kronecker: Spectrum | None
    pi: float | None
    normalization: str = "A=1/N sum_nt, G=1/(NT) sum_nt"
    note: str | None = None


@dataclass(frozen=True)
class TensorNormalResult:
    """Spectra of the tensor-normal factors Ũ_i (ren eq. 4.10) of one parameter tensor and of their Kronecker
    product."""

    statistic: str
    modes: tuple[Spectrum | None, ...]
    kronecker: Spectrum | None
    note: str | None = None


@dataclass(frozen=True)
class KernelStructure:
    """Means of the entries of a matrix over kernel positions, by where the two positions are (fop 5, Figure 5a).

    `diagonal`: of a position with itself; `neighbours`: with the next one along each axis of the kernel, in the axes'
    order (vertical, horizontal), None for an axis of one position; `others`: all other pairs; `negative`: the share of
    neighbouring pairs whose weight is below zero, 1 where P whitens as in the paper.
    """

    diagonal: float
    neighbours: tuple[float | None, ...]
    others: float | None
    negative: float | None


@dataclass(frozen=True)
class GradientAngle:
    """∠(g, Pg) in degrees for the mean gradient g of so many examples (fop Figure A.1); None where g is zero.

    `targets` says whose targets g is of: those of the "data", or "drawn" from the network's own distribution.
    """

    degrees: float | None
    targets: str
    examples: int


@dataclass(frozen=True)
class FopResult:
    """FOP's learned matrix of one parameter: P = c·MMᵀ ("full") or c·(I + MMᵀ) ("low-rank"), M `[size, rank]`.

    `name` is the layer's, `kernel` the sizes of the kernel whose positions P is over (None for inputs of a linear
    layer), `norm` ‖P‖_F. c is 1, or √size/‖MMᵀ‖ resp. √size/‖I + MMᵀ‖ where `normalized`.
    """

    name: str
    parameter: str
    form: str
    size: int
    rank: int
    normalized: bool
    kernel: tuple[int, ...] | None
    spectrum: Spectrum | None = None
    norm: float | None = None
    structure: KernelStructure | None = None
    angle: GradientAngle | None = None
    note: str | None = None


@dataclass(frozen=True)
class LayerResult:
    """Everything known about one layer; an analysis that was not possible is None and its reason is in the coverage.

    `evidence` says what `kind` was inferred from, with that `confidence`, where it was not known.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    confidence: float
    evidence: str | None = None
    weights: WeightsResult | None = None
    moments: MomentsResult | None = None
    kfac: KfacResult | None = None
    tnt: TensorNormalResult | None = None


@dataclass(frozen=True)
class BlockCoverage:
    """How far one block of parameters got: "analyzed", "weights-only", "fallback" or "skipped", and why."""

    name: str
    status: str
    reason: str | None
    parameters: int


@dataclass(frozen=True)
class Coverage:
    """How many of the model's parameters the analyses reached, block by block."""

    parameters: int
    analyzed: int
    blocks: tuple[BlockCoverage, ...]


@dataclass(frozen=True)
class Analysis:
    """The result of `curvlab.analyze`: a mapping from layer name to `LayerResult`, with provenance and coverage."""

    command: tuple[str, ...]
    seed: int
    environment: Mapping[str, Any]
    model: Mapping[str, Any]
    data: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    coverage: Coverage
    layers: tuple[LayerResult, ...]
    notes: tuple[str, ...] = ()
    fop: tuple[FopResult, ...] = ()
    hessian: Mapping[str, Any] | None = None

    def __getitem__(self, name: str) -> LayerResult:
        """The layer called `name`; a KeyError names the layers there are."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer {name!r}; there are: {', '.join(layer.name for layer in self.layers)}")

    def to_dict(self) -> dict[str, Any]:
        """This analysis as the JSON contract `curvlab.analysis/1`."""
        content = plain(self)
        return {
            "schema": SCHEMA,
            "curvlab": importlib.metadata.version("curvlab"),
            **{key: content[key] for key in ("command", "seed", "environment", "model", "data")},
            **{key: content[key] for key in ("settings", "coverage", "layers", "fop", "hessian", "notes")},
        }
