"""P(M) = c·MMᵀ or c·(I + MMᵀ) on the last mode of a parameter, c = 1 or √d/‖·‖: FOP's matrix (fop eq. 2, 5, 9).

A gradient is read as rows of that mode, `[n, d]`: a linear layer's W `[o, i]` has n = o rows of d = i inputs (M is
shared across outputs), a kernel `[o, i, kh, kw]` n = o·i rows of d = kh·kw positions (M is shared across channels).

Of the two orders in which a product with M `[d, k]` can be done the cheaper one is taken: P g costs at most 2·n·d·k
multiplications, the hypergradient 4·n·d·k. Matrices of d × d are formed only for n ≥ d and only where that is cheaper,
or for a norm, which adds some products of PROBES·d·k, or for d ≤ SMALL, where all of equal size go through one product:
a network of narrow convolutions would else spend longer on starting products than on computing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

import curvlab.operators.woodbury_spectrum  # noqa: F401 - what there is to see of I + MMᵀ
from curvlab.operators.operator import LowRank, Operator
from curvlab.operators.woodbury import Woodbury
from curvlab.rules.hypergradient import Learned
from curvlab.shapes import Float

PROBES = 128
"""‖P‖ is exact for d up to this, and measured on so many random rows beyond: exactly it would cost d²k."""

SMALL = 32
"""Up to this d, a product of two d × d matrices takes no longer than starting it."""


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
        normalized: whether c = √d/‖P‖_F, so that M rotates and does not scale (fop A.1), or c = 1.
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
        u = self._unscaled(m, g.reshape(-1, len(m)))
        if self.normalized:
            u = u * self._scale(m)
        return u.reshape(g.shape)

    def pull(
        self, m: Float[Tensor, "d k"], now: Float[Tensor, "*shape"], before: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "d k"]:
        """c(nowᵀbefore + beforeᵀnow)M (fop eq. 4); normalised, less ⟨now, P before⟩/‖P‖² of the same with (I, P)."""
        a, b = now.reshape(-1, len(m)), before.reshape(-1, len(m))
        found = symmetric_product(a, b, m)
        if not self.normalized:
            return found
        z, y = self._probed(m)
        share = (a * self._unscaled(m, b)).sum() / y.square().sum()
        return (found - share * symmetric_product(z, y, m)) * self._scale(m)

    def apply_all(self, ms: Sequence[Tensor], gs: Sequence[Tensor]) -> list[Tensor]:
        """`apply` of each, the small matrices of one shape in one product."""
        found: dict[int, Tensor] = {}
        for places in _batches(ms):
            stack = torch.stack([ms[i] for i in places])
            d, p = stack.shape[1], self._formed(stack)
            if self.normalized:
                p = p * (d**0.5 / _norms(p))
            for i, one in zip(places, p.unbind(), strict=True):
                g = gs[i]
                found[i] = (g.reshape(-1, d) @ one).view(g.shape)
        return [found[i] if i in found else self.apply(m, gs[i]) for i, m in enumerate(ms)]

    def pull_all(
        self, ms: Sequence[Tensor], nows: Sequence[Tensor], befores: Sequence[Tensor], scale: float
    ) -> list[Tensor]:
        """scale · `pull` of each, the small matrices of one shape in one product."""
        found: dict[int, Tensor] = {}
        for places in _batches(ms):
            stack = torch.stack([ms[i] for i in places])
            d = stack.shape[1]
            c = torch.stack([nows[i].reshape(-1, d).mT @ befores[i].reshape(-1, d) for i in places])
            both = c + c.mT
            if self.normalized:
                p = self._formed(stack)
                norms = _norms(p)
                both -= p * (2 * (c * p).sum((1, 2), keepdim=True) / norms.square())
                both *= d**0.5 / norms
            found.update(zip(places, (both @ stack).mul_(scale).unbind(), strict=True))
        return [found[i] if i in found else self.pull(m, nows[i], befores[i]).mul_(scale) for i, m in enumerate(ms)]

    def operator(self, m: Float[Tensor, "d k"]) -> Operator:
        """P(M), to look at."""
        c = self._scale(m).item() if self.normalized else 1.0
        return LowRank(m.mT, c) if self.rank is None else Woodbury(m.mT, c, c)

    def _unscaled(self, m: Float[Tensor, "d k"], rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        (n, d), k = rows.shape, m.shape[1]
        u: Tensor = rows @ (m @ m.mT) if d * (n + k) < 2 * n * k else rows @ m @ m.mT
        return u if self.rank is None else u.add_(rows)

    def _formed(self, stack: Float[Tensor, "l d k"]) -> Float[Tensor, "l d d"]:
        p = stack @ stack.mT
        if self.rank is not None:
            p.diagonal(dim1=1, dim2=2).add_(1)
        return p

    def _scale(self, m: Float[Tensor, "d k"]) -> Float[Tensor, ""]:
        norm = self._probed(m)[1].norm()
        scale: Tensor = len(m) ** 0.5 / norm.clamp(min=torch.finfo(m.dtype).tiny)
        return scale

    def _probed(self, m: Float[Tensor, "d k"]) -> tuple[Float[Tensor, "s d"], Float[Tensor, "s d"]]:
        """(Z, ZP) with ZᵀZ the identity, or so on average: ‖P‖² = ‖ZP‖²."""
        z = _probes(len(m), m.dtype, m.device)
        return z, self._unscaled(m, z)


def _batches(ms: Sequence[Tensor]) -> list[list[int]]:
    """Places of small matrices that can be stacked."""
    alike: dict[Any, list[int]] = {}
    for i, m in enumerate(ms):
        shape = m.shape
        if shape[0] <= SMALL:
            alike.setdefault((shape, m.dtype, m.device), []).append(i)
    return list(alike.values())


def _norms(p: Float[Tensor, "l d d"]) -> Float[Tensor, "l 1 1"]:
    norms: Tensor = torch.linalg.matrix_norm(p, keepdim=True)
    return norms.clamp_(min=torch.finfo(p.dtype).tiny)


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
