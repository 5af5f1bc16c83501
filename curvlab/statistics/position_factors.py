"""D_n = Σ_t l[n,t] r[n,t]ᵀ: the gradient of a matrix of parameters by its positions, and its contractions without it.

l has an entry for every row of the matrix and r for every column. In a layer they are output gradients and features, in
a transposed one the other way round; of a table of embeddings l is one-hot. A table that is the output layer as well
has the positions of both uses side by side. Nothing larger than a few examples' positions times rows is formed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from curvlab.capture.sample import Sample
from curvlab.layers.embedding import EmbeddingLayer
from curvlab.layers.layer import Layer
from curvlab.layers.linear import TransposedLinearLayer
from curvlab.shapes import Bool, Float, Int
from curvlab.statistics.sample_rows import in_own_type, indices

CHUNK = 2**24
"""Entries of l and r converted at a time."""


@dataclass(frozen=True)
class OneHot:
    """Rows with a 1 at `places` and zeros elsewhere; all zero where a position does not count."""

    places: Int[Tensor, "n t"]
    counted: Bool[Tensor, "n t"] | None
    width: int

    def of(self, examples: slice) -> OneHot:
        """Those of some examples."""
        return OneHot(self.places[examples], None if self.counted is None else self.counted[examples], self.width)

    def weighted(self, mix: Float[Tensor, "n k t"]) -> Float[Tensor, "n k t"]:
        """`mix`, with zeros for positions that do not count."""
        return mix if self.counted is None else mix * self.counted[:, None, :].to(mix.dtype)


Side = tuple[Tensor | OneHot, ...]
"""l or r of every use, `[n, t, d]`; their positions follow one another."""


def sides(parts: Sequence[tuple[Sample, str]], shape: tuple[int, ...]) -> tuple[Side, Side] | None:
    """(l, r) of all uses of a parameter in one backward pass; None where its gradient is no sum over positions.

    Args:
        parts: (sample, role) of every use.
        shape: of the parameter, rows and columns.
    """
    if not all(role == "weight" and _has_positions(sample.layer, shape) for sample, role in parts):
        return None
    pairs = [_pair(sample) for sample, _ in parts]
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


def positions(side: Side) -> int:
    """T, over all uses."""
    return sum((one.places if isinstance(one, OneHot) else one).shape[1] for one in side)


def rows_of_mode(own: Side, other: Side, dtype: torch.dtype) -> tuple[Float[Tensor, "r d"], Int[Tensor, " d"] | None]:
    """Rows with Σ rrᵀ = Σ_n mat(D_n) mat(D_n)ᵀ, min(T, d of `other`) for an example, and the places of their columns.

    With K_n = Σ r rᵀ over the other side's positions and RᵀR = K_n they are R l[n].

    Args:
        own: the side of the mode.
        other: the other side.
        dtype: of the products.
    """
    columns = _columns(own)
    made = [_mixed(_root(b), a, columns).flatten(0, 1) for a, b in _some(own, other, dtype)]
    return (made[0] if len(made) == 1 else torch.cat(made)), columns


def square_of_mode(own: Side, other: Side, dtype: torch.dtype) -> Float[Tensor, "d d"]:
    """Σ_n mat(D_n) mat(D_n)ᵀ = Σ_n l[n]ᵀ K_n l[n], of which the upper triangle counts. Arguments as in
    `rows_of_mode`; `own` without one-hot parts."""
    total: Tensor | None = None
    for a, b in _some(own, other, dtype):
        joined = torch.cat([part for part in a if isinstance(part, Tensor)], dim=1)
        one = (_gram(b) @ joined).flatten(0, 1).mT @ joined.flatten(0, 1)
        total = one if total is None else total.add_(one)
    assert total is not None
    return (total + total.mT) / 2


def is_dense(side: Side) -> bool:
    """Whether no part is one-hot."""
    return not any(isinstance(one, OneHot) for one in side)


def _has_positions(layer: Layer, shape: tuple[int, ...]) -> bool:
    if layer.groups > 1 or len(shape) != 2:
        return False
    sizes = (layer.out_features, layer.in_features)
    if layer.by_rows:
        return sizes == shape
    return sizes[::-1] == shape and isinstance(layer, TransposedLinearLayer | EmbeddingLayer)


def _pair(sample: Sample) -> tuple[Tensor | OneHot, Tensor | OneHot]:
    g = in_own_type(sample, [call.g for call in sample.calls]).output_gradients[0]
    if isinstance(sample.layer, EmbeddingLayer):
        found = [indices(call, sample.examples) for call in sample.calls]
        places = torch.cat([one for one, _ in found], dim=1)
        masks = [torch.ones_like(one, dtype=torch.bool) if mask is None else mask for one, mask in found]
        counted = None if all(mask is None for _, mask in found) else torch.cat(masks, dim=1)
        return OneHot(places, counted, sample.layer.in_features), g
    a = in_own_type(sample, [call.x for call in sample.calls]).features[0]
    return (g, a) if sample.layer.by_rows else (a, g)


def _some(own: Side, other: Side, dtype: torch.dtype) -> Iterator[tuple[Side, Side]]:
    """Both sides of a few examples at a time, in the type of the products."""
    first = own[0].places if isinstance(own[0], OneHot) else own[0]
    widths = sum(one.shape[1] * one.shape[2] for one in (*own, *other) if isinstance(one, Tensor))
    step = max(1, CHUNK // max(widths, 1))
    for start in range(0, len(first), step):
        some = slice(start, start + step)
        yield _cut(own, some, dtype), _cut(other, some, dtype)


def _cut(side: Side, some: slice, dtype: torch.dtype) -> Side:
    return tuple(one.of(some) if isinstance(one, OneHot) else one[some].to(dtype) for one in side)


def _root(side: Side) -> Float[Tensor, "n k t"]:
    """R with RᵀR the Gram matrix of the side's positions; k = min(T, d), or T."""
    if is_dense(side):
        joined = torch.cat([one for one in side if isinstance(one, Tensor)], dim=1)
        factor: Tensor = torch.linalg.qr(joined.mT, mode="r").R
        return factor
    values, vectors = torch.linalg.eigh(_gram(side))
    root: Tensor = vectors.mT * values.clamp(min=0).sqrt()[..., None]
    return root


def _gram(side: Side) -> Float[Tensor, "n t t"]:
    """Products of all positions of an example with each other."""
    return torch.cat([torch.cat([_product(a, b, side) for b in side], dim=2) for a in side], dim=1)


def _product(a: Tensor | OneHot, b: Tensor | OneHot, side: Side) -> Float[Tensor, "n s t"]:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a @ b.mT
    if isinstance(a, OneHot) and isinstance(b, OneHot):
        dtype = next((one.dtype for one in side if isinstance(one, Tensor)), torch.float64)
        same = (a.places[:, :, None] == b.places[:, None, :]).to(dtype)
        return a.weighted(b.weighted(same).mT).mT
    if isinstance(a, OneHot):
        return _product(b, a, side).mT
    assert isinstance(a, Tensor)
    assert isinstance(b, OneHot)
    return b.weighted(a.gather(2, b.places[:, None, :].expand(-1, a.shape[1], -1)))


def _columns(side: Side) -> Int[Tensor, " s"] | None:
    """The places of the columns that are not zero, where the side is one-hot."""
    hot = [one for one in side if isinstance(one, OneHot)]
    if len(hot) < len(side):
        return None
    seen = [one.places if one.counted is None else one.places[one.counted] for one in hot]
    found: Tensor = torch.cat([one.flatten() for one in seen]).unique()  # type: ignore[no-untyped-call]
    return found if len(found) else found.new_zeros(1)


def _mixed(mix: Float[Tensor, "n k t"], side: Side, columns: Int[Tensor, " s"] | None) -> Float[Tensor, "n k d"]:
    """mix[n] l[n], on some columns or on all of them."""
    made, start = list[Tensor](), 0
    width = len(columns) if columns is not None else max(_width(one) for one in side)
    for one in side:
        count = one.places.shape[1] if isinstance(one, OneHot) else one.shape[1]
        part, start = mix[:, :, start : start + count], start + count
        if isinstance(one, Tensor):
            made.append(part @ one)
            continue
        places = (
            one.places if columns is None else torch.searchsorted(columns, one.places.contiguous()).clamp(max=width - 1)
        )
        out = made.pop() if made else part.new_zeros(*part.shape[:2], width)
        out.scatter_add_(2, places[:, None, :].expand(part.shape), one.weighted(part))
        made.append(out)
    return reduce(Tensor.add_, made)


def _width(one: Tensor | OneHot) -> int:
    return one.width if isinstance(one, OneHot) else one.shape[2]
