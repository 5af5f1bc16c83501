"""What the singular values of a weight say (docs/curvature.md): norms, ranks, condition number, and their tail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from curvlab.analyses.power_law import power_laws
from curvlab.analyses.singular_values import singular_values, spectral_norm
from curvlab.linalg.float64 import CHUNK, double, pieces
from curvlab.shapes import Num


@dataclass(frozen=True)
class WeightsResult:
    """Singular-value summary of a weight as a matrix (out, everything else); the tail is a power law of the
    eigenvalues σ².

    `rank` counts the σ that are more than the rounding of the stored numbers, out of `size`. `condition_number` is
    σ_1/σ_min, None below full rank; `condition_number_nonzero` is σ_1 over the least σ that counts.
    """

    spectral_norm: float | None
    frobenius_norm: float | None
    stable_rank: float | None
    effective_rank: float | None
    condition_number: float | None
    rank: int | None
    nonfinite: int
    zeros: int
    tail_exponent: float | None
    tail_distance: float | None
    tail_start: float | None
    tail_count: int | None
    note: str | None = None
    size: int | None = None
    condition_number_nonzero: float | None = None


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
    return stacked_statistics([weight], groups, transposed, memory)[0]


def stacked_statistics(
    weights: Sequence[Tensor], groups: int = 1, transposed: bool = False, memory: int | None = None
) -> list[WeightsResult]:
    """`weight_statistics` of each of several weights of one shape, dtype and device, computed together.

    Several weights are copied and converted at once: they should be small. `memory` is that of one weight.
    """
    first = weights[0]
    if first.is_complex():
        return [replace(_NOTHING, note="complex numbers are not analysed")] * len(weights)
    if first.numel() == 0:
        return [replace(_NOTHING, rank=0, note="the weight has no entries")] * len(weights)
    stack = first.detach()[None] if len(weights) == 1 else torch.stack([weight.detach() for weight in weights])
    blocks = stacked_blocks(stack, groups, transposed)
    tall = blocks if blocks.shape[2] >= blocks.shape[3] else blocks.mT
    scanned = _scan(tall)
    results = [_without_values(entries, first.numel()) for entries in scanned]
    kept = [index for index, result in enumerate(results) if result is None]
    found = iter(_spectra(tall if len(kept) == len(results) else tall[kept], [scanned[i] for i in kept], memory))
    return [next(found) if result is None else result for result in results]


def _without_values(entries: _Entries, size: int) -> WeightsResult | None:
    """What there is to say of a weight that has no singular values, or only zeros; None for all others."""
    known = replace(_NOTHING, nonfinite=entries.nonfinite, zeros=entries.zeros)
    if entries.nonfinite:
        return replace(known, note=f"{entries.nonfinite} of {size} entries are not finite")
    if entries.largest == 0:
        return replace(known, spectral_norm=0.0, frobenius_norm=0.0, rank=0, note="all entries are zero")
    return None


def _spectra(tall: Num[Tensor, "b g n m"], scanned: Sequence[_Entries], memory: int | None) -> list[WeightsResult]:
    """The numbers of weights whose entries are finite and not all zero."""
    if not scanned:
        return []
    scales = [math.ldexp(1.0, max(math.frexp(entries.largest)[1] - 1, -1000)) for entries in scanned]
    needed = 16 * tall.shape[3] ** 2
    allowed = 2 * tall[0].nbytes + _ROOM if memory is None else memory
    if needed > allowed:
        sizes = f"needs {needed / 2**30:.2f} GiB, and {allowed / 2**30:.2f} GiB are allowed"
        note = f"only norms: the Gram matrix of size {tall.shape[3]} {sizes}"
        return [_norms(*each, note) for each in zip(tall, scanned, scales, strict=True)]

    found = singular_values(tall, double(tall[:0]).new_tensor(scales))
    tops = found.values[:, -1:]
    shares = (found.values / tops).square()  # of the largest λ
    entropy = torch.special.entr(shares / shares.sum(1, keepdim=True)).sum(1)
    counts = found.values > 0
    least = found.values.where(counts, math.inf).amin(1)
    columns = (tops[:, 0], least, shares.sum(1), entropy.exp(), counts.sum(1))
    numbers = zip(*(column.tolist() for column in columns), strict=True)
    return [
        WeightsResult(
            spectral_norm=_finite(top),
            frobenius_norm=_finite(entries.norm),
            stable_rank=stable,
            effective_rank=effective,
            condition_number=top / least if rank == counts.shape[1] else None,
            rank=rank,
            nonfinite=0,
            zeros=entries.zeros,
            tail_exponent=tail.exponent if tail else None,
            tail_distance=tail.distance if tail else None,
            tail_start=_finite(tail.start * top * top) if tail else None,
            tail_count=tail.count if tail else None,
            note=note,
            size=counts.shape[1],
            condition_number_nonzero=top / least,
        )
        for (top, least, stable, effective, rank), tail, note, entries in zip(
            numbers, power_laws(shares), found.notes, scanned, strict=True
        )
    ]


def _norms(tall: Num[Tensor, "g n m"], entries: _Entries, scale: float, note: str) -> WeightsResult:
    top = spectral_norm(tall, scale)
    return replace(
        _NOTHING,
        zeros=entries.zeros,
        spectral_norm=top,
        frobenius_norm=entries.norm,
        stable_rank=(entries.norm / top) ** 2,
        note=note,
    )


def weight_blocks(weight: Num[Tensor, "*shape"], groups: int, transposed: bool) -> Num[Tensor, "g o i"]:
    """The diagonal blocks of a weight as a matrix, rows for outputs: a view, except of a transposed convolution.

    Arguments and errors as in `weight_statistics`.
    """
    return stacked_blocks(weight[None], groups, transposed)[0]


def stacked_blocks(stack: Num[Tensor, "b ..."], groups: int, transposed: bool) -> Num[Tensor, "b g o i"]:
    """`weight_blocks` of several weights of one shape."""
    count, shape = stack.shape[0], stack.shape[1:]
    if groups == shape.numel():  # a diagonal, whatever its shape: (1, T, C) of a scale by hand, (H, W) of a LayerNorm
        return stack.reshape(count, groups, 1, 1)
    rows = shape[0] if shape else 1
    if rows % groups:
        raise ValueError(f"a weight of {rows} rows cannot be {groups} groups")
    if transposed and len(shape) > 1:
        return stack.reshape(count, groups, rows // groups, shape[1], -1).transpose(2, 3).flatten(3)
    return stack.reshape(count, groups, rows // groups, -1)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class _Entries:
    """What one reading of all entries says; `largest` and `norm` (Frobenius's) only if all are finite."""

    nonfinite: int
    zeros: int
    largest: float
    norm: float


def _scan(tall: Num[Tensor, "b g n m"]) -> list[_Entries]:
    """Several weights are one piece, or one weight several."""
    count = len(tall)
    limit = CHUNK if count == 1 else tall.numel()
    nonfinite, zeros, largest, norm = torch.zeros(4, count, dtype=torch.float64)
    for _, flat in pieces(tall.flatten(0, 1), limit):
        piece = flat.reshape(count, -1, *flat.shape[1:])
        zeros += (piece == 0).sum((1, 2, 3)).cpu()
        bound = torch.maximum(piece.amax((1, 2, 3)), -piece.amin((1, 2, 3)))  # NaN if there is one
        if not bool(bound.isfinite().all()):
            nonfinite += (~piece.isfinite()).sum((1, 2, 3)).cpu()
        divisor = bound.where(bound.isfinite() & (bound > 0), 1.0)  # scaled, since squares may overflow
        scaled = torch.linalg.vector_norm(piece / divisor[:, None, None, None], dim=(1, 2, 3))
        largest, norm = torch.maximum(largest, bound.cpu()), torch.hypot(norm, (scaled * divisor).cpu())
    rows = zip(nonfinite.tolist(), zeros.tolist(), largest.tolist(), norm.tolist(), strict=True)
    return [_Entries(int(bad), int(none), *rest) for bad, none, *rest in rows]
