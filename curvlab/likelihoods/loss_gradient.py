"""Class axis, counted positions and scale of a closure's loss h, from its gradient ∂h/∂z at the model's output.

An optimizer gets a closure and never sees the targets. For h = c · 1/N Σ_n ℓ_n the gradient ∂h/∂z = c/N · residual
says on which axis the classes are, which positions count, and what c is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.likelihoods.bernoulli import Bernoulli
from curvlab.likelihoods.categorical import Categorical
from curvlab.likelihoods.gaussian import Gaussian
from curvlab.likelihoods.likelihood import Likelihood
from curvlab.likelihoods.masked import Masked

MISFIT = 0.05
"""Relative residual of the fit of c beyond which targets are not one class per position."""


def class_axis_of(gradient: Tensor) -> int:
    """The axis, 1 or -1, along which ∂h/∂z sums to zero.

    A loss of softmax(z) does not change when a constant is added to z along the axis of the classes, so its gradient
    sums to zero there and, but for accidents, nowhere else. Reads the device.

    Args:
        gradient: ∂h/∂z `(n, ..., V)` or `(n, V, ...)`.
    """
    if gradient.ndim < 3:
        return 1
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    first, last = torch.stack([wide.sum(axis).abs().sum() for axis in (1, -1)]).tolist()
    return -1 if last < first else 1


def counted(likelihood: Categorical, gradient: Tensor) -> Tensor:
    """True at the positions whose loss depends on z: those that the closure's loss counts.

    Padding with the label -100, positions that a shifted loss leaves out and examples of weight zero have a gradient of
    exactly zero. So has a position whose p(y | z) rounds to one, and there the Fisher matrix rounds to zero as well.
    """
    return (gradient != 0).any(likelihood.class_axis)


def loss_scale(likelihood: Likelihood, z: Tensor, gradient: Tensor, loss: Tensor) -> Tensor:
    """c with h ≈ c · 1/N Σ_n ℓ_n. Nothing is read from the device.

    Cross entropies reveal the targets by the sign of the gradient; c = N ⟨∂h/∂z, r⟩ / ⟨r, r⟩ with r = ∂ℓ/∂z then is a
    least-squares fit. Where it leaves more than `MISFIT` of the gradient unexplained (smoothed or weighted targets),
    the nearest of the usual reductions is taken: mean over examples, mean over the positions that count, sum.
    For squared errors, h = c/(2N) ‖z − y‖² and ∂h/∂z = c/N (z − y) give c = N ‖∂h/∂z‖² / (2h), exact where h has no
    further terms.

    Args:
        likelihood: of the batch, with its class axis and mask.
        z: the model's output.
        gradient: ∂h/∂z.
        loss: h.
    """
    wide = torch.promote_types(z.dtype, torch.float32)
    z, gradient, n = z.to(wide), gradient.to(wide), z.shape[0]
    inner = likelihood.inner if isinstance(likelihood, Masked) else likelihood
    if isinstance(inner, Gaussian):
        return n * gradient.square().sum() / (2 * loss.to(wide))
    if isinstance(inner, Categorical):
        residual = inner.residual(z, gradient.argmin(inner.class_axis))
    elif isinstance(inner, Bernoulli):
        residual = z.sigmoid() - (gradient < 0).to(wide)
    else:
        return z.new_ones(())
    positions = (
        z.new_full((), float(residual.numel() // residual.shape[inner.class_axis]))
        if isinstance(inner, Categorical)
        else z.new_full((), float(residual.numel()))
    )
    if isinstance(likelihood, Masked):
        residual = residual * likelihood.beside(z)
        positions = likelihood.mask.sum().to(wide)
    c = n * (gradient * residual).sum() / residual.square().sum()
    misfit = (gradient - c / n * residual).norm() / gradient.norm()
    usual = torch.stack([z.new_ones(()), n / positions, z.new_full((), float(n))])
    distance = (usual.log() - c.log()).abs().nan_to_num(torch.inf)
    return torch.where(misfit < MISFIT, c, usual.gather(0, distance.argmin(keepdim=True))[0])
