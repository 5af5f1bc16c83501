"""Low-rank adapters (LoRA): the update B·A, added to its base weight where the file also holds the scale.

The update is scaled by α/r. PEFT keeps α in a configuration file beside the weights, so in its files the scale is
unknown: there the base weight stays as it is and the update is shown as a layer of its own, correct up to that scale.
Files of other writers store `alpha` as a tensor, and then the sum is exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.inference.fold import Finder, Fold, Specs, working, working_spec

# peft: X.lora_A.default.weight, X.lora_A.weight; loralib: X.lora_A; kohya: X.lora_down.weight.
_DOWN = re.compile(r"(?P<layer>.+)\.lora_(?P<down>A|down)(?P<rest>(?:\.[^.]+)?(?:\.weight)?)")


def low_rank_product(down: Tensor, up: Tensor, alpha: Tensor | None = None) -> Tensor:
    """ΔW = (α/r) B A with A = `down` (r, i, …), B = `up` (o, r, …); B A where α is unknown (Hu et al. 2021)."""
    down, up = working(down), working(up)
    rank = down.shape[0]
    product = (up.reshape(up.shape[0], rank) @ down.reshape(rank, -1)).reshape(up.shape[0], *down.shape[1:])
    return product if alpha is None else product * (working(alpha) / rank)


def with_update(base: Tensor, down: Tensor, up: Tensor, alpha: Tensor) -> Tensor:
    """W = W₀ + (α/r) B A."""
    return working(base) + low_rank_product(down, up, alpha)


def unchanged(tensor: Tensor) -> Tensor:
    """The tensor itself: a bias that moves with its weight."""
    return tensor


def _low_rank(specs: Specs, tensors: Mapping[str, Tensor]) -> Iterator[Fold]:
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
        if base is not None and has_alpha:
            evidence = f"base weight plus LoRA update of {rank}, scaled by the stored alpha"
            yield Fold(layer, "weight", working_spec(specs[base]), (base, *parts, alpha), with_update, evidence)
            bias = base.removesuffix("weight") + "bias"
            if bias in specs and bias != f"{layer}.bias":
                yield Fold(layer, "bias", specs[bias], (bias,), unchanged, "bias of the base layer")
        else:
            scale = "scaled by the stored alpha" if has_alpha else "without its scale alpha/r, which is not in the file"
            evidence = f"LoRA update B·A of {rank} {scale}"
            sources = (*parts, alpha) if has_alpha else parts
            # Several adapters may share a layer; their name is what stands between lora_A and weight.
            adapter = found["rest"].removesuffix(".weight")
            update = f"{layer}.lora_update{adapter}"
            yield Fold(update, "weight", working_spec(down, shape), sources, low_rank_product, evidence)


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


FINDERS: tuple[Finder, ...] = (_low_rank,)
