"""Weights: what the singular values of a weight say, read from the file alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from curvlab.analyses.power_law import power_law
from curvlab.analyses.results import WeightsResult
from curvlab.analyses.singular_values import singular_values, spectral_norm
from curvlab.linalg.float64 import pieces
from curvlab.shapes import Num

_ROOM = 224 * 2**20  # so that the whole process stays under four times a large weight and 500 MB
_NOTHING = WeightsResult(None, None, None, None, None, None, 0, 0, None, None, None, None)


def weight_statistics(
    weight: Tensor, groups: int = 1, transposed: bool = False, memory: int | None = None
) -> WeightsResult:
    """‖W‖₂ = σ_1, ‖W‖_F = √Σσ², ‖W‖_F²/‖W‖₂², exp(−Σ p ln p) with p = σ²/Σσ², σ_1/σ_min, and the tail of λ = σ².

    W is (out, everything else), a grouped weight blockdiag(W_1, …, W_g): the scale of a norm layer, with as many
    groups as entries, is diag(γ). The tail is the `power_law` of λ, and its start a λ. All numbers are those of W as
    stored, whatever its dtype, in float64; it is converted piece by piece.

    Args:
        weight: of any shape and real dtype; () and (n,) are columns, (out, in/groups, *kernel) a convolution.
        groups: diagonal blocks along the first axis.
        transposed: the weight is (in, out/groups, *kernel), as in a transposed convolution.
        memory: bytes that may be used beside the weight; by default twice its own and 224 MiB. Where the Gram matrix
            needs more, only the norms and the stable rank are computed, and `note` says so.

    Returns:
        Numbers that do not exist are None: all of them if any entry of W is not finite, the condition number if W has
        not full rank, the tail of fewer than 10 values.

    Raises:
        ValueError: the first axis is not a multiple of `groups`.
        NumericalError: LAPACK did not converge.
    """
    if weight.is_complex():
        return replace(_NOTHING, note="complex numbers are not analysed")
    if weight.numel() == 0:
        return replace(_NOTHING, rank=0, note="the weight has no entries")
    tall = _blocks(weight.detach(), groups, transposed)
    entries = _scan(tall)
    known = replace(_NOTHING, nonfinite=entries.nonfinite, zeros=entries.zeros)
    if entries.nonfinite:
        return replace(known, note=f"{entries.nonfinite} of {weight.numel()} entries are not finite")
    if entries.largest == 0:
        return replace(known, spectral_norm=0.0, frobenius_norm=0.0, rank=0, note="all entries are zero")
    scale = math.ldexp(1.0, max(math.frexp(entries.largest)[1] - 1, -1000))
    needed, allowed = 16 * tall.shape[2] ** 2, 2 * weight.nbytes + _ROOM if memory is None else memory
    if needed > allowed:
        top = spectral_norm(tall, scale)
        known = replace(known, spectral_norm=top, frobenius_norm=entries.norm, stable_rank=(entries.norm / top) ** 2)
        sizes = f"needs {needed / 2**30:.2f} GiB, and {allowed / 2**30:.2f} GiB are allowed"
        return replace(known, note=f"only norms: the Gram matrix of size {tall.shape[2]} {sizes}")

    found = singular_values(tall, scale)
    top, least = found.values[-1].item(), found.values[0].item()
    shares = (found.values / top).square()  # of the largest λ
    tail = power_law(shares)
    return WeightsResult(
        spectral_norm=_finite(top),
        frobenius_norm=_finite(entries.norm),
        stable_rank=shares.sum().item(),
        effective_rank=math.exp(torch.special.entr(shares / shares.sum()).sum().item()),
        condition_number=top / least if least > 0 else None,
        rank=int((found.values > 0).sum()),
        nonfinite=0,
        zeros=entries.zeros,
        tail_exponent=tail.exponent if tail else None,
        tail_distance=tail.distance if tail else None,
        tail_start=_finite(tail.start * top * top) if tail else None,
        tail_count=tail.count if tail else None,
        note=found.note,
    )


def _blocks(weight: Num[Tensor, "*shape"], groups: int, transposed: bool) -> Num[Tensor, "g n m"]:
    """The diagonal blocks or their transposes, n ≥ m: a view, except of a transposed convolution."""
    if groups == weight.numel():  # a diagonal, whatever its shape: (1, T, C) of a scale by hand, (H, W) of a LayerNorm
        return weight.reshape(groups, 1, 1)
    rows = weight.shape[0] if weight.ndim else 1
    if rows % groups:
        raise ValueError(f"a weight of {rows} rows cannot be {groups} groups")
    if transposed and weight.ndim > 1:
        blocks = weight.reshape(groups, rows // groups, weight.shape[1], -1).transpose(1, 2).flatten(2)
    else:
        blocks = weight.reshape(groups, rows // groups, -1)
    return blocks if blocks.shape[1] >= blocks.shape[2] else blocks.mT


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class _Entries:
    """What one reading of all entries says; `largest` and `norm` (Frobenius's) only if all are finite."""

    nonfinite: int
    zeros: int
    largest: float
    norm: float


def _scan(blocks: Num[Tensor, "g n m"]) -> _Entries:
    nonfinite = zeros = 0
    largest = norm = 0.0
    for _, piece in pieces(blocks):
        zeros += int((piece == 0).sum())
        bound = max(abs(end.item()) for end in torch.aminmax(piece))  # both NaN if there is one
        if not math.isfinite(bound):
            nonfinite += int((~piece.isfinite()).sum())
        elif bound > 0:
            largest = max(largest, bound)
            norm = math.hypot(norm, bound * (piece / bound).norm().item())  # scaled, since squares may overflow
    return _Entries(nonfinite, zeros, largest, norm)
