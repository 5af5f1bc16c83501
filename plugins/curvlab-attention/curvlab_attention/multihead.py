"""nn.MultiheadAttention with its four projections in the open; what is between them is computed as torch does."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curvlab.errors import UnsupportedLayer
from curvlab.layers.elementwise import Elementwise
from curvlab.layers.layer import Layer, Tap, Unrolled, adapt
from curvlab.layers.linear import LinearLayer
from curvlab_attention.projections import KIND, Projections, side_by_side


class Attention(Unrolled):
    """y = W_o concat_h softmax(q_h k_hᵀ/√d + mask) v_h, with q, k, v = W_q x_q, W_k x_k, W_v x_v.

    The maps are "in_proj" (query, key, value as its three groups) and "out_proj"; where key or value have a width of
    their own, "q_proj", "k_proj", "v_proj" and "in_proj_bias"; with `add_bias_kv`, "bias_k" and "bias_v".
    """

    def __init__(self, module: nn.MultiheadAttention) -> None:
        self.module: Any = module
        self._add_maps(module)

    def _add_maps(self, module: Any) -> None:  # Any: torch declares parameters as present that may be None
        self.layers: dict[str, Layer] = {}
        if module.in_proj_weight is not None:
            self.layers["in_proj"] = Projections(module.in_proj_weight, module.in_proj_bias)
        else:
            for name in ("q_proj", "k_proj", "v_proj"):
                self.layers[name] = LinearLayer(getattr(module, f"{name}_weight"), None, KIND)
            if module.in_proj_bias is not None:
                self.layers["in_proj_bias"] = Elementwise(KIND, None, module.in_proj_bias, axis=-1)
        for name in ("bias_k", "bias_v"):
            if getattr(module, name) is not None:
                self.layers[name] = Elementwise(KIND, None, getattr(module, name), axis=1)
        self.layers["out_proj"] = LinearLayer(module.out_proj.weight, module.out_proj.bias, KIND)

    def forward(
        self,
        tap: Tap,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Output and attention weights, as the module returns them; its arguments are those of torch.

        Raises:
            UnsupportedLayer: an input is a nested tensor.
        """
        module = self.module
        if query.is_nested or key.is_nested or value.is_nested:
            raise UnsupportedLayer(
                f"{KIND} was called with a nested tensor", "its examples differ in their number of positions"
            )
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")  # as torch does
        batched, swapped = query.ndim == 3, query.ndim == 3 and not module.batch_first
        inputs = [x.transpose(0, 1) if swapped else x if batched else x[None] for x in (query, key, value)]
        projected = self._projected(tap, inputs, query is key and key is value)
        q, k, v = (self._heads(x) for x in self._with_bias_kv(tap, projected))
        if module.add_zero_attn:
            k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
        # torch believes the hint only here, and then shapes the mask by the positions appended to the keys too.
        hinted = is_causal and key_padding_mask is None and not need_weights
        mask = None if hinted else _mask(attn_mask, key_padding_mask, q, k, inputs[1].shape[1])
        dropout = module.dropout if module.training else 0.0
        if need_weights:
            scores = q * math.sqrt(1.0 / q.shape[-1]) @ k.mT
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            y = weights @ v
        else:
            weights, y = None, F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=hinted)
        attended = y.transpose(1, 2).flatten(2)
        output = tap("out_proj", attended, F.linear(attended, module.out_proj.weight, module.out_proj.bias))
        output = output.transpose(0, 1) if swapped else output if batched else output[0]
        if weights is None:
            return output, None
        weights = weights.mean(1) if average_attn_weights else weights
        return output, weights if batched else weights[0]

    def _projected(self, tap: Tap, inputs: list[Tensor], shared: bool) -> list[Tensor]:
        """q, k, v `(n, t, width)`."""
        module, lengths = self.module, [x.shape[1] for x in inputs]
        bias = module.in_proj_bias
        if module.in_proj_weight is not None:
            if shared:
                x = inputs[0]
                y = F.linear(x, module.in_proj_weight, bias)
            else:
                biases = [None] * 3 if bias is None else bias.chunk(3)
                maps = zip(inputs, module.in_proj_weight.chunk(3), biases, strict=True)
                x, y = side_by_side(inputs), side_by_side([F.linear(*parts) for parts in maps])
            y = tap("in_proj", x, y)
        else:
            parts = []
            for name, x in zip(("q_proj", "k_proj", "v_proj"), inputs, strict=True):
                parts.append(tap(name, x, F.linear(x, getattr(module, f"{name}_weight"))))
            y = side_by_side(parts)
            if bias is not None:
                y = tap("in_proj_bias", y.detach(), y + bias)
        return [part[:, :length] for part, length in zip(y.chunk(3, dim=-1), lengths, strict=True)]

    def _with_bias_kv(self, tap: Tap, projected: list[Tensor]) -> list[Tensor]:
        """Keys and values with the one more position that `add_bias_kv` gives them."""
        extended = projected[:1]
        for name, x in zip(("bias_k", "bias_v"), projected[1:], strict=True):
            more = getattr(self.module, name)
            if more is not None:
                row = more.expand(x.shape[0], 1, 1, -1).clone()
                x = torch.cat([x, tap(name, row.detach(), row)[:, 0]], dim=1)
            extended.append(x)
        return extended

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.module.num_heads, -1).transpose(1, 2)


def _mask(attn: Tensor | None, padding: Tensor | None, q: Tensor, k: Tensor, keys: int) -> Tensor | None:
    """What is added to the scores (n, heads, t, s): −∞ where a mask forbids; positions that were appended to the keys
    are free."""
    total: Tensor | None = None
    for mask, shape in ((attn, (-1, 1) if attn is None or attn.ndim == 2 else q.shape[:2]), (padding, (q.shape[0], 1))):
        if mask is None:
            continue
        rows = mask.shape[-2] if mask is attn else 1
        added = mask if mask.is_floating_point() else q.new_zeros(mask.shape).masked_fill(mask, -math.inf)
        added = added.reshape(*shape, rows, keys).to(q.dtype)
        total = added if total is None else total + added
    return None if total is None else F.pad(total, (0, k.shape[2] - keys))


@adapt.register
def _(module: nn.MultiheadAttention) -> Unrolled:
    return Attention(module)
