"""Attention of queries to keys, with the caches and masks that ONNX has for it, and rotary positions."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from curvlab.formats.onnx.operators.element_types import element_type
from curvlab.formats.onnx.operators.table import Result, UnsupportedOperator, operator

_NEVER = -float("inf")


@operator("Attention")
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    outputs: int = 1,
) -> Result:
    """softmax(q kᵀ · scale + mask) v for every head; a query that may see nothing gives zeros."""
    flat = query.ndim == 3
    if flat:
        if not q_num_heads or not kv_num_heads:
            raise UnsupportedOperator("operator Attention", "it does not say how many heads there are")
        query, key, value = _heads(query, q_num_heads), _heads(key, kv_num_heads), _heads(value, kv_num_heads)
    before = 0 if past_key is None else past_key.shape[2]
    present_key = key if past_key is None else torch.cat([past_key, key], 2)
    present_value = value if past_value is None else torch.cat([past_value, value], 2)
    # One head of keys may serve several of queries.
    repeats = query.shape[1] // present_key.shape[1]
    keys, values = present_key.repeat_interleave(repeats, 1), present_value.repeat_interleave(repeats, 1)
    root = torch.tensor(sqrt(1 / sqrt(query.shape[-1]) if scale is None else scale), dtype=query.dtype)
    scores = torch.matmul(query * root, keys.mT * root)
    shown = {0: scores}
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    shown[1] = scores
    steps, size = query.shape[2], keys.shape[2]
    offset = torch.tensor(before) if lengths is None or past_key is not None else (lengths.reshape(-1, 1, 1, 1) - steps)
    windows = (left_window_size, 0 if is_causal else right_window_size)
    bias = _bias(mask, steps, size, offset, windows, query.dtype)
    if lengths is not None:
        padding = torch.arange(size) < lengths.reshape(-1, 1, 1, 1)
        bias = torch.where(padding, bias, _NEVER)
    scores = scores + bias
    shown[2] = scores
    wide = scores if softmax_precision is None else scores.to(element_type(softmax_precision))
    nothing = (bias == _NEVER).all(-1, keepdim=True)
    weights = torch.softmax(torch.where(nothing, torch.zeros_like(wide), wide), -1)
    weights = torch.where(nothing, torch.zeros_like(weights), weights).to(query.dtype)
    shown[3] = weights
    y = torch.matmul(weights, values)
    if flat:
        y = y.transpose(1, 2).flatten(2)
    return (y, present_key, present_value, shown[qk_matmul_output_mode])[:outputs]


def _heads(x: Tensor, heads: int) -> Tensor:
    """(examples, steps, heads · size) → (examples, heads, steps, size)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _bias(
    mask: Tensor | None, steps: int, size: int, offset: Tensor, windows: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """What is added to the scores: the mask, and −∞ outside the window around the query's own place."""
    bias = torch.zeros(steps, size, dtype=dtype)
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, _NEVER)
        missing = size - mask.shape[-1]
        if missing > 0:
            mask = torch.cat([mask, mask.new_full((*mask.shape[:-1], missing), _NEVER)], -1)
        bias = bias + mask
    left, right = windows
    ahead = torch.arange(size) - torch.arange(steps)[:, None] - offset  # of the query's own place
    if left >= 0:
        bias = torch.where(ahead < -left, _NEVER, bias)
    return torch.where(ahead > right, _NEVER, bias) if right >= 0 else bias


@operator("RotaryEmbedding")
def rotary_embedding(
    x: Tensor,
    cosines: Tensor,
    sines: Tensor,
    positions: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """Pairs of features turned by an angle that grows with the position."""
    flat = x.ndim == 3
    heads = _heads(x, num_heads) if flat else x
    turned = heads[..., : rotary_embedding_dim or heads.shape[-1]]
    c, s = (t if positions is None else t[positions.long()] for t in (cosines, sines))
    c, s = c[:, None], s[:, None]
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    real, imaginary = c * a - s * b, s * a + c * b
    pair = torch.stack([real, imaginary], -1).flatten(-2) if interleaved else torch.cat([real, imaginary], -1)
    y = torch.cat([pair, heads[..., turned.shape[-1] :]], -1)
    return y.transpose(1, 2).flatten(2) if flat else y
