"""Likelihood: p(y | z) at the model's output z, the loss ℓ = −log p, and the cotangents that turn backward passes into
Fisher factors.

A *cotangent* is a tensor shaped like z, to be pulled back through the network: a residual ∂ℓ/∂z at a drawn target
("mc"), at the data's target ("empirical"), or a column of a square root of the Hessian of ℓ at z ("type-2", exact).
Table: docs/curvature.md; Ren 2022, section 1.2.2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from curvlab.errors import CurvlabError

FisherType = Literal["type-2", "mc", "empirical", "forward-only"]
FISHER_TYPES: tuple[str, ...] = get_args(FisherType)


class Likelihood(ABC):
    """ℓ_n = −log p(y_n | z_n), summed over all outputs and positions of example n."""

    name: str

    @abstractmethod
    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        """Mean over examples of ℓ_n: a scalar."""

    @abstractmethod
    def residual(self, z: Tensor, y: Tensor) -> Tensor:
        """∂ℓ_n/∂z_n for every example: the shape of z, no 1/N."""

    @abstractmethod
    def sample(self, z: Tensor, uniforms: Tensor) -> Tensor:
        """Targets y ~ p(· | z) from independent uniforms of shape `draws(z)`; a deterministic function of both."""

    def sampled_residual(self, z: Tensor, uniforms: Tensor) -> Tensor:
        """The residual at targets that are drawn, as a tensor of its own."""
        return self.residual(z, self.sample(z, uniforms))

    @abstractmethod
    def draws(self, z: Tensor) -> tuple[int, ...]:
        """Shape of the uniforms that `sample` needs; examples first, so that drawing is independent of the batch
        split."""

    @abstractmethod
    def hessian_root(self, z: Tensor) -> Iterator[Tensor]:
        """Columns S_k, shaped like z, with Σ_k S_k S_kᵀ = ∂²ℓ/∂z² for every example."""

    @abstractmethod
    def hessian_product(self, z: Tensor, v: Tensor) -> Tensor:
        """H_n v_n for every example, H_n = ∂²ℓ_n/∂z_n²: the shape of z."""

    def check(self, z: Tensor) -> None:
        """Raise CurvlabError if z cannot be this likelihood's output."""
        if not z.is_floating_point():
            raise CurvlabError(f"the model's output has type {z.dtype}", "a likelihood needs floating-point outputs")

    def check_targets(self, z: Tensor, y: Tensor) -> None:  # noqa: B027 - real numbers are never wrong
        """Raise CurvlabError if y, of this likelihood's kind and shape, cannot be; other targets are not checked."""

    def cotangents(
        self,
        z: Tensor,
        y: Tensor | None,
        fisher_type: str,
        mc_samples: int,
        generator: torch.Generator | None,
        dtype: torch.dtype = torch.float64,
    ) -> Iterator[Tensor]:
        """The cotangents of one batch; their pulled-back outer products sum to the Fisher's (in expectation for "mc").

        Targets are checked whether they are used or not: wrong ones mean wrong data, or another network's.
        `generator` draws uniforms of type `dtype` for "mc", on its own device.
        """
        z = z.detach()
        self.check(z)
        if y is not None:
            self.check_targets(z, y)
        if fisher_type == "type-2":
            yield from self.hessian_root(z)
        elif fisher_type == "mc":
            shape = self.draws(z)
            # One row of uniforms per example and sample, in the order of the examples: the same numbers however the
            # data is split.
            device = generator.device if generator is not None else None
            u = torch.rand(shape[0], mc_samples, *shape[1:], generator=generator, dtype=dtype, device=device)
            u = u.to(z.device)
            for k in range(mc_samples):
                residual = self.sampled_residual(z, u[:, k])
                yield residual.div_(mc_samples**0.5) if mc_samples > 1 else residual
        elif fisher_type == "empirical":
            if y is None:
                raise CurvlabError("fisher_type='empirical' needs targets", "", "give y, or use 'mc' or 'type-2'")
            yield self.residual(z, y)
        elif fisher_type != "forward-only":
            raise CurvlabError(f"unknown fisher_type {fisher_type!r}", "", f"use one of {', '.join(FISHER_TYPES)}")
