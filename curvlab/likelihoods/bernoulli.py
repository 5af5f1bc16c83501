"""Bernoulli: ℓ = Σ_j BCE(σ(z_j), y_j), Hessian diag(σ(1 − σ)) (docs/curvature.md; Ren 2022, section 1.2.2 prints
diag(σ), a slip)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.errors import CurvlabError
from curvlab.likelihoods.likelihood import Likelihood


class Bernoulli(Likelihood):
    """Independent binary outputs with logits z; targets in [0, 1]."""

    name = "bernoulli"

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        """Σ over outputs, mean over examples."""
        return F.binary_cross_entropy_with_logits(z, fit(z, y), reduction="sum") / z.shape[0]

    def residual(self, z: Tensor, y: Tensor) -> Tensor:
        """σ(z) − y."""
        return z.sigmoid() - fit(z, y)

    def sample(self, z: Tensor, uniforms: Tensor) -> Tensor:
        """1 where the uniform is below σ(z)."""
        return (uniforms < z.to(uniforms.dtype).sigmoid()).to(z.dtype)

    def draws(self, z: Tensor) -> tuple[int, ...]:
        """One uniform per output."""
        return tuple(z.shape)

    def hessian_root(self, z: Tensor) -> Iterator[Tensor]:
        """Columns √(σ(1−σ)) e_j."""
        p = z.sigmoid()
        yield from diagonal_columns((p * (1 - p)).sqrt())

    def hessian_product(self, z: Tensor, v: Tensor) -> Tensor:
        """σ(1−σ) ⊙ v."""
        p = z.sigmoid()
        return p * (1 - p) * v


def diagonal_columns(root: Tensor) -> Iterator[Tensor]:
    """Columns of diag(root) for every example: tensors shaped like `root` with one output each."""
    flat = root.flatten(1)
    for j in range(flat.shape[1]):
        column = torch.zeros_like(flat)
        column[:, j] = flat[:, j]
        yield column.reshape(root.shape)


def fit(z: Tensor, y: Tensor) -> Tensor:
    """y in the shape and type of z; a missing output axis of length 1 is added, anything else is an error."""
    if y.shape != z.shape and y.numel() == z.numel() and z.shape[: y.ndim] == y.shape:
        y = y.reshape(z.shape)
    if y.shape != z.shape:
        raise CurvlabError(f"targets of shape {tuple(y.shape)} do not fit outputs of shape {tuple(z.shape)}")
    return y.to(z.dtype)
