"""LowRank: a layer with a low-rank update whose factors are layers of their own: s = W a + c B A a."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from curvlab.formats.inference.fold_low_rank import low_rank_product

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LowRank(nn.Module):
    """base_layer(x) + c · lora_B(lora_A(x)) (Hu et al. 2021).

    Args:
        base: the layer that is adapted: Linear, transformers' Conv1D, Embedding, or a convolution.
        down: A: (r, i), of a convolution (r, i, k, …), of an embedding (r, rows).
        up: B: (o, r), of a convolution (o, r, 1, …).
        scale: c.

    Raises:
        ValueError: shapes that do not go together, or a layer of another kind.
    """

    def __init__(self, base: nn.Module, down: Tensor, up: Tensor, scale: float) -> None:
        super().__init__()
        self.base_layer, self.scale = base, scale
        self.lora_A, self.lora_B = _maps(base, down, up)

    def __getattr__(self, name: str) -> Any:
        """What the network asks of the layer (its weight's type, its sizes) the adapted layer answers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(self.base_layer, name)

    def forward(self, x: Tensor) -> Tensor:
        """The adapted layer's output."""
        out: Tensor = self.base_layer(x) + self.scale * self.lora_B(self.lora_A(x))
        return out


def merged(base: nn.Module, down: Tensor, up: Tensor, scale: float) -> None:
    """W ← W + c B A, in the layer itself.

    Raises:
        ValueError: as `LowRank`.
    """
    _maps(base, down, up)
    weight: Any = base.weight
    update = scale * low_rank_product(down.to(weight.device), up.to(weight.device))
    if isinstance(base, nn.Embedding) or is_transposed(base):
        update = update.T
    with torch.no_grad():
        weight += update.reshape(weight.shape).to(weight.dtype)


def is_transposed(base: nn.Module) -> bool:
    """Whether it is transformers' Conv1D, a Linear whose weight is (in, out)."""
    return type(base).__name__ == "Conv1D" and type(base).__module__.startswith("transformers.")


def _maps(base: nn.Module, down: Tensor, up: Tensor) -> tuple[nn.Module, nn.Module]:
    """A and B as layers with these weights."""
    weight: Any = getattr(base, "weight", None)
    if not isinstance(weight, Tensor) or down.ndim < 2 or up.ndim < 2 or up.shape[1] != down.shape[0] or not len(down):
        raise ValueError(f"lora_A {tuple(down.shape)} and lora_B {tuple(up.shape)} do not go together")
    rank = len(down)
    if isinstance(base, nn.Embedding):
        a: nn.Module = nn.Embedding(base.num_embeddings, rank, padding_idx=base.padding_idx, device="meta")
        b: nn.Module = nn.Linear(rank, base.embedding_dim, bias=False, device="meta")
        down = down.T
    elif isinstance(base, _CONVOLUTIONS):
        kind: Any = type(base)
        how = {"stride": base.stride, "padding": base.padding, "dilation": base.dilation, "bias": False}
        a = kind(base.in_channels, rank, base.kernel_size, **how, device="meta")
        b = kind(rank, base.out_channels, 1, bias=False, device="meta")
    elif isinstance(base, nn.Linear) or is_transposed(base):
        rows, columns = weight.T.shape if is_transposed(base) else weight.shape
        a = nn.Linear(columns, rank, bias=False, device="meta")
        b = nn.Linear(rank, rows, bias=False, device="meta")
    else:
        raise ValueError(f"a layer of type {type(base).__name__} has no low-rank update that curvlab knows")
    for part, values in ((a, down), (b, up)):
        wanted: Any = part.weight
        if wanted.shape != values.shape:
            raise ValueError(f"shape {tuple(values.shape)} does not fit a weight of {tuple(weight.shape)}")
        part.weight = nn.Parameter(values.detach().to(weight.dtype, copy=True).contiguous())
    return a, b
