"""Tensor-normal contractions G⁽ⁱ⁾ = E[mat_i(D) mat_i(D)ᵀ] of a parameter's gradient D, and Ũ_i from them (Ren 2022,
Alg. 13–15, eq. 4.10).

Two statistics (docs/curvature.md): "batch" contracts the mean gradient of each batch, "per-example" every
example's own gradient. Per example, a plain linear layer needs no gradients: D_n = g_n a_nᵀ gives Σ ‖a_n‖² g gᵀ and Σ
‖g_n‖² a aᵀ; with positions the T×T Gram matrices do the same, where they are cheaper than D_n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from curvlab.capture.sample import Sample
from curvlab.layers.embedding import EmbeddingLayer
from curvlab.linalg.gram import upper_gram
from curvlab.linalg.grouped_product import grouped_product
from curvlab.shapes import Float
from curvlab.statistics.parameter_gradients import parameter_gradients
from curvlab.statistics.sample_rows import indices

TensorStatistic = Literal["batch", "per-example"]
_CHUNK = 2**26  # entries of per-example gradients formed at a time


def contraction_sums(parts: Sequence[tuple[Sample, str]], shape: tuple[int, ...]) -> list[Float[Tensor, "d d"]]:
    """Σ_n mat_i(D_n) mat_i(D_n)ᵀ of one parameter in one backward pass, of which the upper triangles count.

    Args:
        parts: (sample, role) of every use of the parameter; their gradients add up.
        shape: the tensor's modes d_1 … d_k; a convolution weight has three (Ren 2022, section 4.7.2).
    """
    if (rows := contraction_rows(parts, shape)) is not None:
        return [upper_gram(one) for one in rows]
    sample, role = parts[0]
    if len(parts) == 1 and role == "weight" and _by_positions(sample, shape):
        return _position_contractions(sample)
    if len(parts) == 1 and role == "bias" and sample.positions == 1 and sample.layer.groups == 1:
        return [sample.output_gradient_moment[0].clone()]  # already there for K-FAC, whose sum it is
    step = max(1, _CHUNK // max(1, sum(p.numel() for p in sample.layer.parameters.values())))
    sums: list[Tensor] = []
    for start in range(0, sample.examples, step):
        gradients = parameter_gradients(parts, shape, slice(start, start + step))
        more = [_contracted(gradients, mode) for mode in range(len(shape))]
        sums = [total + one for total, one in zip(sums, more, strict=True)] if sums else more
    return sums


def _contracted(gradients: Float[Tensor, "n ..."], mode: int) -> Float[Tensor, "d d"]:
    """Σ_n mat_i(D_n) mat_i(D_n)ᵀ from the gradients themselves."""
    d, rows = gradients.shape[mode + 1], gradients[0].numel() // gradients.shape[mode + 1]
    if mode == 0 and d <= rows:  # matrices as they lie in memory; their products are no larger than they are
        matrices = gradients.flatten(2) if gradients.ndim > 2 else gradients[:, :, None]
        return (matrices @ matrices.mT).sum(0)
    # Rows: every entry of the other modes (and every example); columns: this mode.
    return upper_gram(gradients.movedim(mode + 1, -1).reshape(-1, d))


def contraction_rows(parts: Sequence[tuple[Sample, str]], shape: tuple[int, ...]) -> list[Float[Tensor, "r d"]] | None:
    """Rows r with Σ rrᵀ = Σ_n mat_i(D_n) mat_i(D_n)ᵀ for every mode where D_n is one outer product g aᵀ; else None."""
    sample, role = parts[0]
    if len(parts) > 1 or role != "weight" or sample.positions != 1 or not _by_positions(sample, shape):
        return None
    a, g = sample.features[0][:, 0], sample.output_gradients[0][:, 0]
    weighted = (a * g.norm(dim=1, keepdim=True)).reshape(-1, *shape[1:])
    inner = [weighted.movedim(mode + 1, -1).reshape(-1, d) for mode, d in enumerate(shape[1:])]
    return [g * a.norm(dim=1, keepdim=True), *inner]


def tensor_normal_factors(contractions: Sequence[Float[Tensor, ...]], shape: tuple[int, ...]) -> list[Tensor]:
    """Ũ_i = E[G⁽ⁱ⁾] / (c₀^{k−1} Π_{j≠i} d_j) (Ren 2022, eq. 4.10); zero for a zero gradient."""
    divisors = factor_divisors(contractions[0].diagonal().sum(), shape)
    return [
        torch.where(divisor > 0, contraction / divisor, torch.zeros_like(contraction))
        for contraction, divisor in zip(contractions, divisors, strict=True)
    ]


def factor_divisors(trace: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
    """c₀^{k−1} Π_{j≠i} d_j for every mode i, with c₀ = (tr E[G⁽ⁱ⁾] / Π_j d_j)^{1/k}."""
    size = math.prod(shape)
    c0 = (trace / size) ** (1 / len(shape))
    return [c0 ** (len(shape) - 1) * (size // d) for d in shape]


def gradient_sum(sample: Sample, role: str) -> Tensor:
    """Σ_n D_n, its entries in the order of the parameter's modes."""
    if role == "bias":
        return sample.output_gradients.sum((1, 2))
    if isinstance(sample.layer, EmbeddingLayer):
        return _table_sum(sample, sample.layer)
    total = grouped_product(sample.output_gradients.flatten(1, 2).mT, sample.features.flatten(1, 2))
    if sample.layer.by_rows:
        return total
    if sample.layer.biased:
        total = torch.cat([total, sample.output_gradients.sum((1, 2))[..., None]], dim=-1)
    return sample.layer.split(total)[role]


def _table_sum(sample: Sample, layer: EmbeddingLayer) -> Float[Tensor, "v d"]:
    """Σ g over the positions of each token, without one-hot rows."""
    g = sample.output_gradients[0]
    total, start = g.new_zeros(layer.in_features, layer.out_features), 0
    for call in sample.calls:
        places, counted = indices(call, sample.examples)
        part, start = g[:, start : start + places.shape[1]], start + places.shape[1]
        rows = part if counted is None else part * counted[..., None].to(g.dtype)
        total.index_add_(0, places.flatten(), rows.flatten(0, 1))
    return total


def _by_positions(sample: Sample, shape: tuple[int, ...]) -> bool:
    """Whether T×T Gram matrices cost less than per-example gradients (multiplications per example)."""
    layer, t = sample.layer, sample.positions
    if layer.groups > 1 or len(shape) < 2 or not layer.by_rows:
        return False
    o, i = layer.out_features, layer.in_features
    positions = t * t * (o + i) + t * t * o + t * o * o
    for mode in shape[1:]:
        rest = i // mode
        positions += rest * (t * t * mode + t * mode * mode)
    gradients = t * o * i + o * i * sum(shape)
    return positions < gradients


def _position_contractions(sample: Sample) -> list[Tensor]:
    """Σ_n mat_i(D_n) mat_i(D_n)ᵀ for the modes (out, in) or (out, in, kernel) without forming D_n."""
    a, g = sample.features[0], sample.output_gradients[0]
    inner = sample.layer.modes("weight")[1:]
    out = g.flatten(0, 1).mT @ ((a @ a.mT) @ g).flatten(0, 1)
    gg = g @ g.mT
    weighted = (gg @ a).reshape(-1, *inner)
    plain = a.reshape(-1, *inner)
    rest = []
    for mode, d in enumerate(inner):
        left, right = (x.movedim(mode + 1, -1).reshape(-1, d) for x in (plain, weighted))
        rest.append(left.mT @ right)
    return [_symmetric(x) for x in (out, *rest)]


def _symmetric(x: Tensor) -> Tensor:
    return (x + x.mT) / 2
