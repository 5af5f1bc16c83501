"""Masked: ℓ_n = Σ_t m[n,t] ℓ[n,t], a likelihood of the positions that count (docs/formats.md).

Positions are left out where the attention mask is 0 (padding) and where a label is -100. The mean is still over
examples: ℓ = 1/N Σ_n ℓ_n, with as many terms in ℓ_n as example n has positions that count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from curvlab.likelihoods.categorical import Categorical
from curvlab.likelihoods.likelihood import Likelihood

IGNORED = -100


class Masked(Likelihood):
    """`inner` at the positions where `mask` is true; elsewhere no loss, no residual, no curvature.

    Args:
        inner: the likelihood of every position.
        mask: true where a position counts: the shape of z without its axis of classes; of real outputs (n, t).
    """

    def __init__(self, inner: Likelihood, mask: Tensor) -> None:
        self.inner, self.mask, self.name = inner, mask, inner.name

    def check(self, z: Tensor) -> None:
        """See `inner`."""
        self.inner.check(z)

    def check_targets(self, z: Tensor, y: Tensor) -> None:
        """See `inner`; only positions that count enter."""
        self.inner.check_targets(z, self._filled(y))

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        """Σ over the positions that count, mean over examples."""
        axis = self.inner.class_axis if isinstance(self.inner, Categorical) else -1
        kept = z.movedim(axis, -1)[self.mask]
        if not len(kept):  # a mean over none
            return 0 * z.sum()
        inner = Categorical() if isinstance(self.inner, Categorical) else self.inner
        return inner.loss(kept, self._filled(y)[self.mask]) * (kept.shape[0] / z.shape[0])

    def residual(self, z: Tensor, y: Tensor) -> Tensor:
        """m ⊙ (residual of `inner`)."""
        return self.inner.residual(z, self._filled(y)).mul_(self.beside(z))

    def sampled_residual(self, z: Tensor, uniforms: Tensor) -> Tensor:
        """m ⊙ (that of `inner`)."""
        return self.inner.sampled_residual(z, uniforms).mul_(self.beside(z))

    def sample(self, z: Tensor, uniforms: Tensor) -> Tensor:
        """See `inner`; draws at positions that do not count are ignored."""
        return self.inner.sample(z, uniforms)

    def draws(self, z: Tensor) -> tuple[int, ...]:
        """See `inner`; the numbers that are drawn do not depend on the mask."""
        return self.inner.draws(z)

    def hessian_root(self, z: Tensor) -> Iterator[Tensor]:
        """m ⊙ S_k: positions do not mix in a likelihood's Hessian."""
        mask = self.beside(z)
        yield from (column * mask for column in self.inner.hessian_root(z))

    def hessian_product(self, z: Tensor, v: Tensor) -> Tensor:
        """m ⊙ H(m ⊙ v)."""
        mask = self.beside(z)
        return self.inner.hessian_product(z, v * mask) * mask

    def beside(self, z: Tensor) -> Tensor:
        """The mask as numbers in the shape of z, an axis of length 1 for what belongs to one position."""
        axis = self.inner.class_axis if isinstance(self.inner, Categorical) else -1
        return self.mask.unsqueeze(axis if axis != -1 else self.mask.ndim).to(z.dtype)

    def _filled(self, y: Tensor) -> Tensor:
        if y.shape[: self.mask.ndim] != self.mask.shape:
            return y
        outside = ~self.mask.reshape(*self.mask.shape, *(1,) * (y.ndim - self.mask.ndim))
        return y.masked_fill(outside, 0)


def with_mask(likelihood: Likelihood, z: Tensor, y: Tensor | None, inputs: Any) -> Likelihood:
    """`likelihood`, masked where the batch says so: by `attention_mask` among keyword inputs, by labels of -100.

    Args:
        likelihood: its class axis already chosen.
        z: the model's output.
        y: targets, or None.
        inputs: what the model was called with.
    """
    if isinstance(likelihood, Categorical):
        positions = z.movedim(likelihood.class_axis, -1).shape[:-1]
    else:
        positions = z.shape[:2] if z.ndim == 3 else z.shape[:0]
    mask = position_mask(inputs)
    mask = None if mask is None or mask.shape != positions else mask.to(z.device)
    classes = isinstance(likelihood, Categorical) and y is not None and not y.is_floating_point()
    if classes and y is not None and y.shape == positions:
        kept = (y != IGNORED).to(z.device)
        mask = kept if mask is None else mask & kept
    return likelihood if mask is None or bool(mask.all()) else Masked(likelihood, mask)


def position_mask(inputs: Any) -> Tensor | None:
    """True where a position of the batch is no padding; None where the inputs do not tell."""
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    return mask.bool() if isinstance(mask, torch.Tensor) and mask.ndim == 2 else None
