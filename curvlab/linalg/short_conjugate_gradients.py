"""x ← x + αp, α = rᵀz/pᵀAp, r ← r − αAp, p ← z + βp: a few iterations of conjugate gradients and nothing else.

For the inner loop of a training step, where `conjugate_gradients` would spend more on noting its residuals than on the
products: many small systems at once, in place, nothing read from the device, no judgement but that of the numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from curvlab.shapes import Float

Half = Callable[[Tensor], tuple[Tensor, Callable[[], Tensor]]]
"""p ↦ (pᵀAp of every system, a function that returns Ap): the last iteration needs no Ap."""


def short_conjugate_gradients(
    half: Half,
    r: Float[Tensor, "*b d"],
    preconditioner: Callable[[Tensor], Tensor],
    x: Float[Tensor, "*b d"] | None,
    iterations: int,
) -> Float[Tensor, "*b d"]:
    """x after so many iterations on symmetric positive definite systems `[*b]`, each with an α and β of its own.

    A system without curvature along its p stays where it is, and so does one that is solved. Where numbers are not
    finite, x is zero.

    Args:
        half: see `Half`.
        r: b − Ax; overwritten.
        preconditioner: r ↦ Pr with P ≈ A⁻¹ symmetric positive semi-definite, a new tensor.
        x: where to start, overwritten; None is zero.
        iterations: how many.
    """
    p, before = r, None
    for left in reversed(range(iterations)):
        z = preconditioner(r)
        rz = torch.linalg.vecdot(r, z)
        p = z if before is None else torch.addcmul(z, _ratio(rz, before)[..., None], p)
        curvature, back = half(p)
        alpha = _ratio(rz, curvature)[..., None]
        x = alpha * p if x is None else x.addcmul_(alpha, p)
        if left:
            r.addcmul_(alpha, back(), value=-1)
        before = rz
    if x is None:
        return torch.zeros_like(r)
    # Rows times 0 or 1, and then no NaN: a mask that is broadcast along rows takes twice as long.
    return x.mul_(x.sum(-1, keepdim=True).isfinite()).nan_to_num_(0.0, 0.0, 0.0)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a/b, 0 where b is not positive; NaN stays, so that it shows."""
    return torch.where(b <= 0, 0.0, a / b)
