"""Fisher: which targets the output gradients of a batch are of: exact, sampled, the data's own, or none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.errors import CurvlabError
from curvlab.likelihoods.likelihood import FISHER_TYPES, Likelihood


@dataclass(frozen=True, eq=False)
class Fisher:
    """F = 1/N Σ_n E[∇ℓ_n ∇ℓ_nᵀ] with the expectation over the targets of one of these kinds (docs/curvature.md).

    Attributes:
        likelihood: of the model's output; None where the loss's own gradient is all there is ("empirical").
        fisher_type: "type-2" (exact: one backward pass for each column of the loss's Hessian root), "mc" (sampled
            targets), "empirical" (the data's own), "forward-only" (no gradients).
        mc_samples: sampled targets per example.
        generator: draws for "mc", on its own device.
        dtype: of the uniforms that are drawn; float64 gives the same numbers on every device.
    """

    likelihood: Likelihood | None
    fisher_type: str = "mc"
    mc_samples: int = 1
    generator: torch.Generator | None = None
    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        if self.fisher_type not in FISHER_TYPES:
            raise CurvlabError(f"unknown fisher_type {self.fisher_type!r}", "", f"use one of {', '.join(FISHER_TYPES)}")
        if self.mc_samples < 1:
            raise CurvlabError(f"mc_samples is {self.mc_samples}", "at least one target per example must be drawn")

    @property
    def pseudo(self) -> bool:
        """Whether targets come from the model's own distribution."""
        return self.fisher_type in ("type-2", "mc")

    @property
    def backward(self) -> bool:
        """Whether there are output gradients at all."""
        return self.fisher_type != "forward-only"

    def cotangents(self, likelihood: Likelihood, z: Tensor, y: Tensor | None) -> Iterator[Tensor]:
        """What is pulled back from z; `likelihood` is this one with the class axis and mask of the batch."""
        return likelihood.cotangents(z, y, self.fisher_type, self.mc_samples, self.generator, self.dtype)
