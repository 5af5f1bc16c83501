"""Singular values from the smaller Gram matrix, in float64 and bounded memory; the largest alone for huge matrices.

Small matrices of one shape are stacked: a call of torch costs more than the singular values of a 4 × 3 matrix do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.linalg.eigvalsh import safe_eigvalsh
from curvlab.linalg.float64 import CHUNK, double, double_gram
from curvlab.shapes import Float, Num

RESOLVED = 1e-5
"""Down to this share of the largest, σ = √λ of a Gram matrix has five digits: λ has an error of eps·λ_max."""

SVD_LIMIT = 2**22  # entries up to which a float64 SVD is affordable: a second or two, 64 MiB
_PRODUCTS = 300
_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class SingularValues:
    """σ of every matrix, ascending, 0 where a value cannot be told from 0; a note where that is the method's fault."""

    values: Float[Tensor, "b k"]
    notes: tuple[str | None, ...]


def singular_values(tall: Num[Tensor, "b g n m"], scale: Float[Tensor, " b"]) -> SingularValues:
    """σ = √λ(WᵀW) of each W = blockdiag(W_1, …, W_g); W or its transpose, so that n ≥ m.

    Where some σ is under `RESOLVED` of the largest and the matrix is small, a float64 SVD takes over, if it converges.
    A σ of the SVD, or a λ of the Gram matrix, counts as zero under max(rows, columns)·eps of the largest; so does a σ
    under `rounding` of the largest of its block, which the rounding of the stored numbers alone would make.

    Args:
        tall: finite numbers, in no W all zero, of any real dtype.
        scale: about the largest absolute value of each W; the products are of numbers divided by it.

    Raises:
        NumericalError: LAPACK did not converge.
    """
    count, groups, rows, columns = tall.shape
    blocks, inverse = tall.flatten(0, 1), (1 / scale).repeat_interleave(groups)
    step = max(1, CHUNK // columns**2)
    pieces = [slice(i, i + step) for i in range(0, count * groups, step)]
    values = torch.cat([_gram_eigenvalues(blocks[piece], inverse[piece]) for piece in pieces]).view(count, -1)
    share = values / values.amax(1, keepdim=True)
    smallest = groups * rows * _EPS
    doubtful = (share > 0) & (share < RESOLVED**2)
    lost = doubtful & (share < smallest)
    values = values.where(~lost, 0.0).sqrt()
    notes = [_lost_note(number, smallest) for number in lost.sum(1).tolist()]
    if tall[0].numel() <= SVD_LIMIT:
        again = doubtful.any(1).nonzero()[:, 0]
        exact = _from_svd(tall[again], scale[again]) if again.numel() else []
        for index, found in zip(again.tolist(), exact, strict=True):
            if found is not None:
                values[index], notes[index] = found.where(found >= smallest * found.max(), 0.0), None
    by_block = values.view(count, groups, columns)
    values = by_block.where(by_block >= rounding(tall) * by_block.amax(2, keepdim=True), 0.0).flatten(1)
    return SingularValues(values.sort(1).values * scale[:, None], tuple(notes))


def rounding(tall: Num[Tensor, "*b n m"]) -> float:
    """½√(n + m + 1)·eps: the expected σ_1 of rounding a matrix with σ_1 = 1 to the type it is stored in.

    Source: Press et al. 2007, Numerical Recipes, section 2.6.2, as numpy's `matrix_rank` quotes it. Its default,
    max(n, m)·eps, is above the least σ of most square random matrices in float32 beyond 1,500 rows. Types of 16 and 8
    bits count as float32, which their numbers are exact in: rounded to them, a matrix of low rank has full rank.
    0 for 1 × 1 blocks, whose rounding is relative to their own number.
    """
    rows, columns = tall.shape[-2:]
    if rows == 1 or not tall.dtype.is_floating_point:
        return 0.0
    eps = _EPS if tall.dtype == torch.float64 else torch.finfo(torch.float32).eps
    return 0.5 * math.sqrt(rows + columns + 1) * eps


def _lost_note(number: int, smallest: float) -> str | None:
    under = f"under {math.sqrt(smallest):.0e} of the largest"
    return f"{number} singular values {under} count as zero" if number else None


def _from_svd(tall: Num[Tensor, "b g n m"], scale: Float[Tensor, " b"]) -> list[Float[Tensor, " k"] | None]:
    """σ/scale of each matrix in any order, None where the SVD does not converge."""
    try:
        return list(torch.linalg.svdvals(double(tall) / scale[:, None, None, None]).flatten(1))
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        if len(tall) == 1:
            return [None]
        # One matrix of the stack is to blame: each has its own chance.
        return [_from_svd(tall[i : i + 1], scale[i : i + 1])[0] for i in range(len(tall))]


def _gram_eigenvalues(tall: Num[Tensor, "g n m"], inverse: Float[Tensor, " g"]) -> Float[Tensor, "g m"]:
    """λ(WᵀW)·inverse² of each block, ascending: exactly 0 once for every column of zeros, and positive otherwise."""
    gram = double_gram(tall, inverse)
    empty = (gram.diagonal(dim1=1, dim2=2) == 0).sum(1, keepdim=True)
    values = safe_eigvalsh(gram).clamp(min=torch.finfo(torch.float64).tiny)
    return values.where(torch.arange(values.shape[1], device=values.device) >= empty, 0.0)


def spectral_norm(tall: Num[Tensor, "g n m"], scale: float, tolerance: float = 1e-6) -> float:
    """σ_max of blockdiag(W_1, …, W_g) by Lanczos on WᵀW, in the memory of a few hundred vectors.

    With r = ‖WᵀWv − λv‖ and λ' the next Ritz value, λ is within r of an eigenvalue, and within r²/(λ − λ') once the two
    are told apart (Kato & Temple). Stops when that is under `tolerance`·λ, or after 300 products; other arguments as in
    `singular_values`.
    """
    return max(_lanczos(block, scale, tolerance) for block in tall)


def _lanczos(tall: Num[Tensor, "n m"], scale: float, tolerance: float) -> float:
    v = torch.randn(tall.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    v = v.to(double(tall[:0]).device)
    basis = v.new_zeros(0, len(v))
    # The largest value is stable, so products of float32 entries may stay in float32: no converting in every product.
    dtype = torch.float64 if tall.dtype == torch.float64 else torch.float32
    step = max(1, 2 * CHUNK // len(v))
    inner, beside = [], [v.norm().item()]
    while True:
        basis = torch.cat([basis, (v / beside[-1])[None]])
        v = torch.zeros_like(v)
        for start in range(0, len(tall), step):
            rows = tall[start : start + step].to(v.device, dtype)
            v += rows.T @ (rows @ (basis[-1] / scale).to(dtype) / scale)
        inner.append((v @ basis[-1]).item())
        for _ in range(2):  # reorthogonalised against all, and again: rounding of the first time
            v -= basis.T @ (basis @ v)
        beside.append(v.norm().item())
        off = torch.tensor(beside[1:-1], dtype=torch.float64).diag_embed(1)
        values, vectors = torch.linalg.eigh(torch.tensor(inner, dtype=torch.float64).diag_embed() + off + off.T)
        largest = max(values[-1].item(), 0.0)
        residual = beside[-1] * abs(vectors[-1, -1].item())
        gap = largest - values[-2].item() if len(inner) > 1 else 0.0
        error = residual if gap <= residual else residual**2 / gap
        if error <= tolerance * largest or len(inner) == min(_PRODUCTS, tall.shape[1]):
            return math.sqrt(largest) * scale
