"""P(M) = c·MMᵀ or c·(I + MMᵀ) on the last mode of a parameter, c = 1 or √d/‖·‖: FOP's matrix (FOP, eq. 2, 5, 9).

A gradient is read as rows of that mode, `[n, d]`: a linear layer's W `[o, i]` has n = o rows of d = i inputs (M is
shared across outputs), a kernel `[o, i, kh, kw]` n = o·i rows of d = kh·kw positions (M is shared across channels).

Up to d = SMALL, which kernels mostly are, all is made of P and nowᵀbefore, matrices of d × d. Beyond, of the two orders
in which a product with M `[d, k]` can be done the cheaper one is taken: P g costs at most 2·n·d·k multiplications, the
hypergradient 4·n·d·k. Matrices of d × d are formed only for n ≥ d and only where that is cheaper, and a norm adds some
products of PROBES·d·k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

import curvlab.operators.woodbury_spectrum  # noqa: F401 - what there is to see of I + MMᵀ
from curvlab.operators.operator import LowRank, Operator
from curvlab.operators.woodbury import Woodbury
from curvlab.optim.fop.learned import Learned
from curvlab.shapes import Float

PROBES = 128
"""‖P‖ is exact for d up to this, and measured on so many random rows beyond: exactly it would cost d²k."""

SMALL = 32
"""Up to this d a product of two d × d matrices takes no longer than starting it: then the fewest starts are best."""


def dimension(shape: Sequence[int]) -> int | None:
    """d of a parameter, known from its shape alone; None where there is no matrix (biases, norm scales, scalars)."""
    if len(shape) < 2:
        return None
    return shape[1] if len(shape) == 2 else prod(shape[2:])


@dataclass(frozen=True)
class LearnedMatrix(Learned):
    """P(M) of one parameter.

    Attributes:
        rank: k of I + MMᵀ with M₀ ~ N(0, σ²), at most d; None for MMᵀ with M₀ = I.
        sigma: σ.
        normalized: whether c = √d/‖P‖_F, so that M rotates and does not scale (FOP, section A.1), or c = 1.
    """

    rank: int | None = None
    sigma: float = 0.01
    normalized: bool = False

    def start(self, p: Tensor, generator: torch.Generator) -> Float[Tensor, "d k"]:
        """M₀."""
        d = dimension(p.shape)
        assert d is not None
        if self.rank is None:
            return torch.eye(d, dtype=p.dtype, device=p.device)
        drawn = torch.randn(d, min(self.rank, d), generator=generator, dtype=torch.float64)
        return (self.sigma * drawn).to(p.device, p.dtype)

    def apply(self, m: Float[Tensor, "d k"], g: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """P(M) on the last mode of g."""
        rows = g.reshape(-1, m.shape[0])
        if m.shape[0] <= SMALL:
            p, c = self._formed(m)
            return (rows @ (p if c is None else p * c)).reshape(g.shape)
        u = self._unscaled(m, rows)
        if self.normalized:
            u *= self._scale(self._probed(m)[1])
        return u.reshape(g.shape)

    def pull(
        self, m: Float[Tensor, "d k"], now: Float[Tensor, "*shape"], before: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "d k"]:
        """S M of S = nowᵀbefore + beforeᵀnow (FOP, eq. 4); normalised, c(S − ⟨S, P⟩P/d)M, as ‖P‖² = d stays."""
        d = m.shape[0]
        a, b = now.reshape(-1, d), before.reshape(-1, d)
        if d <= SMALL:
            s = a.mT @ b
            s = s + s.mT
            p, c = self._formed(m) if self.normalized else (s, None)
            return s @ m if c is None else (s - (s * p).sum() * (c * c / d) * p) @ m * c
        found = symmetric_product(a, b, m)
        if not self.normalized:
            return found
        z, y = self._probed(m)
        share = (a * self._unscaled(m, b)).sum() / y.square().sum()
        return (found - share * symmetric_product(z, y, m)) * self._scale(y)

    def operator(self, m: Float[Tensor, "d k"]) -> Operator:
        """P(M) as a matrix, for display."""
        c = self._scale(self._probed(m)[1]).item() if self.normalized else 1.0
        return LowRank(m.mT, c) if self.rank is None else Woodbury(m.mT, c, c)

    def _formed(self, m: Float[Tensor, "d k"]) -> tuple[Float[Tensor, "d d"], Float[Tensor, ""] | None]:
        """(P/c, c), c None where it is 1."""
        p: Tensor = m @ m.mT
        if self.rank is not None:
            p.diagonal().add_(1)
        return p, self._scale(p) if self.normalized else None

    def _unscaled(self, m: Float[Tensor, "d k"], rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        (n, d), k = rows.shape, m.shape[1]
        u: Tensor = rows @ (m @ m.mT) if d * (n + k) < 2 * n * k else rows @ m @ m.mT
        return u if self.rank is None else u.add_(rows)

    def _probed(self, m: Float[Tensor, "d k"]) -> tuple[Float[Tensor, "s d"], Float[Tensor, "s d"]]:
        """(Z, ZP) with ZᵀZ the identity, or so on average: ‖P‖² = ‖ZP‖²."""
        z = _probes(m.shape[0], m.dtype, m.device)
        return z, self._unscaled(m, z)

    def _scale(self, y: Float[Tensor, "s d"]) -> Float[Tensor, ""]:
        scale: Tensor = y.shape[1] ** 0.5 / y.norm().clamp(min=torch.finfo(y.dtype).tiny)
        return scale


def symmetric_product(
    a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], m: Float[Tensor, "d k"]
) -> Float[Tensor, "d k"]:
    """(aᵀb + bᵀa)M in at most 4·n·d·k multiplications."""
    (n, d), k = a.shape, m.shape[1]
    if n >= d and d * (n + k) < 4 * n * k:  # else a product of two d × d matrices might be the largest there is
        c = a.mT @ b
        found: Tensor = (c + c.mT) @ m
        return found
    return torch.addmm(a.mT @ (b @ m), b.mT, a @ m)


@lru_cache(maxsize=64)
def _probes(d: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "s d"]:
    if d <= PROBES:
        return torch.eye(d, dtype=dtype, device=device)
    signs = torch.randint(0, 2, (PROBES, d), generator=torch.Generator().manual_seed(d), dtype=torch.int8)
    rows: Tensor = (2 * signs - 1).to(device, dtype) / PROBES**0.5
    return rows
