"""Low-rank adapters (LoRA): the update B·A, added to its base weight where the file also holds the scale.

The update is scaled by α/r. PEFT keeps α in `adapter_config.json` beside the weights; files of other writers store
`alpha` as a tensor. Where neither is there, the base weight stays as it is and the update is shown as a layer of its
own, correct up to the scale.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from torch import Tensor

from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.inference.fold import Finder, Fold, Specs, working, working_spec

# peft: X.lora_A.default.weight, X.lora_A.weight; loralib: X.lora_A; kohya: X.lora_down.weight.
_DOWN = re.compile(r"(?P<layer>.+)\.lora_(?P<down>A|down)(?P<rest>(?:\.[^.]+)?(?:\.weight)?)")


Scale = Callable[[str, int], float]
"""(name of a layer, rank r of its update) -> α/r."""


def low_rank_product(down: Tensor, up: Tensor, alpha: Tensor | None = None) -> Tensor:
    """ΔW = (α/r) B A with A = `down` (r, i, …), B = `up` (o, r, …); B A where α is unknown (Hu et al. 2021)."""
    down, up = working(down), working(up)
    rank = down.shape[0]
    product = (up.reshape(up.shape[0], rank) @ down.reshape(rank, -1)).reshape(up.shape[0], *down.shape[1:])
    return product if alpha is None else product * (working(alpha) / rank)


def with_update(base: Tensor, down: Tensor, up: Tensor, alpha: Tensor) -> Tensor:
    """W = W₀ + (α/r) B A."""
    return working(base) + low_rank_product(down, up, alpha)


def scaled_product(down: Tensor, up: Tensor, scale: float) -> Tensor:
    """c B A, where a configuration gives c = α/r."""
    return scale * low_rank_product(down, up)


def with_scaled_update(base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """W = W₀ + c B A."""
    return working(base) + scaled_product(down, up, scale)


def unchanged(tensor: Tensor) -> Tensor:
    """The tensor itself: a bias that moves with its weight."""
    return tensor


def finders(scale: Scale | None = None) -> tuple[Finder, ...]:
    """The finder of low-rank updates; `scale` is what a configuration beside the file says of them."""
    return (partial(_low_rank, scale=scale),)


def _low_rank(specs: Specs, tensors: Mapping[str, Tensor], scale: Scale | None = None) -> Iterator[Fold]:
    for name, down in specs.items():
        found = _DOWN.fullmatch(name)
        if not found:
            continue
        layer = found["layer"]
        up_name = f"{layer}.lora_{'B' if found['down'] == 'A' else 'up'}{found['rest']}"
        up = specs.get(up_name)
        if up is None or not _fits(down, up):
            continue
        shape = (up.shape[0], *down.shape[1:])
        parts = (name, up_name)
        alpha, base = f"{layer}.alpha", next((b for b in _bases(layer) if b in specs and specs[b].shape == shape), None)
        has_alpha = alpha in specs and specs[alpha].elements == 1
        rank = f"rank {down.shape[0]}"
        told = None if scale is None or has_alpha else scale(layer, down.shape[0])
        scaled = "scaled by the stored alpha" if has_alpha else ""
        if told is not None:
            scaled = f"scaled by alpha/r = {told:.6g} of adapter_config.json"
        if base is not None and scaled:
            evidence = f"base weight plus LoRA update of {rank}, {scaled}"
            compute = with_update if told is None else partial(with_scaled_update, scale=told)
            whole = (base, *parts, alpha) if has_alpha else (base, *parts)
            yield Fold(layer, "weight", working_spec(specs[base]), whole, compute, evidence)
            bias = base.removesuffix("weight") + "bias"
            if bias in specs and bias != f"{layer}.bias":
                yield Fold(layer, "bias", specs[bias], (bias,), unchanged, "bias of the base layer")
        else:
            evidence = f"LoRA update B·A of {rank} {scaled or 'without its scale alpha/r, which is not in the file'}"
            product = low_rank_product if told is None else partial(scaled_product, scale=told)
            sources = (*parts, alpha) if has_alpha else parts
            # Several adapters may share a layer; their name is what stands between lora_A and weight.
            adapter = found["rest"].removesuffix(".weight")
            update = f"{layer}.lora_update{adapter}"
            yield Fold(update, "weight", working_spec(down, shape), sources, product, evidence)


def _bases(layer: str) -> tuple[str, ...]:
    return f"{layer}.base_layer.weight", f"{layer}.weight"


def _fits(down: TensorSpec, up: TensorSpec) -> bool:
    """(r, i, …) below (o, r) or (o, r, 1, 1)."""
    return (
        down.is_float
        and up.is_float
        and len(down.shape) >= 2
        and len(up.shape) >= 2
        and up.shape[1] == down.shape[0]
        and all(size == 1 for size in up.shape[2:])
    )
