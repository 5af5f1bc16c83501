"""Plan: which statistics one pass over the data collects; Collected: what it has collected, mergeable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from curvlab.errors import CurvlabError
from curvlab.statistics.block_fisher import BlockFisher
from curvlab.statistics.feature_moments import FeatureMoments
from curvlab.statistics.output_gradient_moments import OutputGradientMoments, ReducedMoments
from curvlab.statistics.tensor_normal import TensorNormal, TensorStatistic

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What to collect.

    Attributes:
        features: μ and M of each block (A of K-FAC "expand" comes from them).
        output_gradients: the gradient side of K-FAC.
        kfac_approx: "expand" or "reduce".
        tensors: statistic of the tensor-normal contractions, or None for none.
        exact: the exact Fisher block.
        fisher_type: "type-2", "mc", "empirical" or "forward-only" (docs/curvature.md).
        mc_samples: pseudo-targets per example for "mc".
        dtype: of the products; None is the model's own. Sums over batches are float64 always.
        halves: keep two sums, of every second example each, for standard errors.
        keep_rows: keep feature rows while they are fewer than the features.
        skip: statistic ("features", "output_gradients", "tensors", "exact") -> names of the blocks (tensors:
            parameters) it leaves out.
    """

    features: bool = True
    output_gradients: bool = False
    kfac_approx: str = "expand"
    tensors: TensorStatistic | None = None
    exact: bool = False
    fisher_type: str = "mc"
    mc_samples: int = 1
    dtype: torch.dtype | None = None
    halves: bool = False
    keep_rows: bool = False
    skip: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mc_samples < 1:
            raise CurvlabError(f"mc_samples is {self.mc_samples}", "at least one target per example must be drawn")

    @property
    def reduced(self) -> bool:
        """Whether K-FAC averages over positions first."""
        return self.output_gradients and self.kfac_approx == "reduce"

    @property
    def backward(self) -> bool:
        """Whether any statistic needs gradients."""
        return (self.output_gradients or self.tensors is not None or self.exact) and self.fisher_type != "forward-only"

    def wants(self, statistic: str, name: str) -> bool:
        """Whether `name` is not left out of `statistic`."""
        return name not in self.skip.get(statistic, ())


@dataclass
class Collected:
    """One part of the data's statistics, by block name (tensor-normal: by parameter name); `rows` is N·T of each
    block."""

    examples: int = 0
    batches: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    features: dict[str, FeatureMoments] = field(default_factory=dict)
    output_gradients: dict[str, OutputGradientMoments] = field(default_factory=dict)
    reduced: dict[str, ReducedMoments] = field(default_factory=dict)
    tensors: dict[str, TensorNormal] = field(default_factory=dict)
    exact: dict[str, BlockFisher] = field(default_factory=dict)

    def merge(self, other: Collected) -> Collected:
        """The statistics of both parts of the data (halves of the same batches; exact blocks are never halved)."""
        merged = Collected(self.examples + other.examples, max(self.batches, other.batches), exact=self.exact)
        for name, rows in [*self.rows.items(), *other.rows.items()]:
            merged.rows[name] = merged.rows.get(name, 0) + rows
        merged.features = _merge(self.features, other.features, FeatureMoments.merge)
        merged.output_gradients = _merge(self.output_gradients, other.output_gradients, OutputGradientMoments.merge)
        merged.reduced = _merge(self.reduced, other.reduced, ReducedMoments.merge)
        merged.tensors = _merge(self.tensors, other.tensors, TensorNormal.merge)
        return merged


def _merge(mine: dict[str, T], theirs: dict[str, T], merge: Callable[[T, T], T]) -> dict[str, T]:
    return {**mine, **theirs, **{name: merge(mine[name], theirs[name]) for name in mine if name in theirs}}
