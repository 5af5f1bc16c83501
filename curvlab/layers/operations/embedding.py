"""F.embedding and W[index]: rows of a table, s = Wᵀ onehot(index)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.layers.embedding import EmbeddingLayer
from curvlab.layers.expression import Expression, apply
from curvlab.layers.operations.operation import AffineUse, register


def _rows(table: Expression, index: Tensor, padding: int | None = None) -> list[AffineUse]:
    """Rows of a table with any number of further axes."""
    shape = table.value.shape
    if len(shape) != 2:
        table = apply(torch.reshape, "reshape", table, (shape[0], -1))

    def make(weight: Tensor) -> EmbeddingLayer:
        return EmbeddingLayer(weight, padding)

    def output(y: Tensor) -> Tensor:
        return y.reshape(*index.shape, -1)

    return [AffineUse(make, {"weight": table}, index % shape[0], index, output=output, key=padding)]


@register(F.embedding)
def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> list[AffineUse] | None:
    """weight[input], without the gradient of the padding's row."""
    if not isinstance(input, Tensor) or not isinstance(weight, Expression) or max_norm is not None:
        return None
    if scale_grad_by_freq:
        return None
    padding = None if padding_idx is None else padding_idx % weight.value.shape[0]
    return _rows(weight, input, padding)


@register(torch.embedding)
def embedding_of(
    weight: Any, indices: Any, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> list[AffineUse] | None:
    """As F.embedding."""
    return embedding(indices, weight, None if padding_idx < 0 else padding_idx, None, 2.0, scale_grad_by_freq)


@register(Tensor.__getitem__)
def getitem(table: Any, index: Any) -> list[AffineUse] | None:
    """table[index]."""
    if isinstance(index, tuple) and len(index) == 1:
        index = index[0]
    if (
        not isinstance(table, Expression)
        or not isinstance(index, Tensor)
        or index.dtype not in (torch.int64, torch.int32)
    ):
        return None
    return _rows(table, index)


@register(torch.index_select, Tensor.index_select)
def index_select(input: Any, dim: int, index: Any) -> list[AffineUse] | None:
    """input[index] on the first axis."""
    if not isinstance(input, Expression) or dim % input.value.ndim != 0 or not isinstance(index, Tensor):
        return None
    return _rows(input, index)
