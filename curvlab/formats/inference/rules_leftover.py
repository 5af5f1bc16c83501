"""What is not a layer: fixed tensors that a network carries along, packed integers, parameters that stand alone."""

from __future__ import annotations

import re
from dataclasses import replace

from curvlab.formats.checkpoint import InferredLayer
from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.inference.layer_group import AGREED, SHAPE, UNIQUE, Group, same

_FIXED = re.compile(
    r"(?:.*_)?(?:position_ids|token_type_ids|inv_freq|freqs?(?:_cis)?|(?:causal_|attn_|attention_)?mask|masked_bias|window"
    r"|(?:cos|sin)_cached|basis|fb|melW|sinusoid\w*|absmax|quant_map)(?:_buffer|_cache|_cached)?",
    re.IGNORECASE,
)
_TRANSFORM = re.compile(r"(?:^|[._])i?(?:stft|dft)(?:$|[._0-9])", re.IGNORECASE)
_PACKED = re.compile(r"(?:.*_)?(?:q?weight|kernel|packed|blocks|_?data)", re.IGNORECASE)
_PACKING = re.compile(
    r"q?zeros?|zero_point|scales?|SCB|absmax|nested_absmax|(?:nested_)?quant_map|g_idx|weight_format|.*quant_state.*"
    r"|.*_(?:scales?|zero_point|zeros|scale_inv)|scale_weight|scale_inv",
    re.IGNORECASE,
)
_WHOLE = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"})


def fixed_transform(group: Group) -> InferredLayer | None:
    """The weight of a module named after a Fourier transform: its basis, which is not trained."""
    shape = group.shape("weight")
    if shape is None or len(shape) < 2 or not _TRANSFORM.search(group.name):
        return None
    return group.layer("buffer", same("weight"), shape, SHAPE, "the name says a fixed basis of a Fourier transform")


def causal_mask(group: Group) -> InferredLayer | None:
    """A `bias` of four axes that is square in the last two: GPT-2 calls its causal mask so."""
    shape = group.shape("bias")
    if shape is None or len(shape) != 4 or shape[:2] != (1, 1) or shape[2] != shape[3]:
        return None
    mask = group.layer("buffer", same("bias"), shape, AGREED, f"square mask {shape} stored as a bias")
    return replace(mask, name=group.full_names["bias"])


def packed(group: Group) -> InferredLayer | None:
    """Integers named as a weight, together with what their unpacking needs: reported, not analysed."""
    for role, spec in group.specs.items():
        if spec.dtype in _WHOLE and spec.elements > 1 and _PACKED.fullmatch(role):
            parts = [other for other in group.specs if other != role and _PACKING.fullmatch(other)]
            roles = same(role, *parts, *(["bias"] if group.shape("bias") is not None else []))
            why = f"{spec.dtype} values in {role} {spec.shape}, packed in a way that names and shapes do not tell"
            return group.layer("packed", roles, spec.shape, SHAPE, why)
    return None


def single(group: Group, role: str) -> InferredLayer:
    """A tensor that belongs to no layer: a buffer if its type, shape or name says so, else a parameter."""
    spec, name = group.specs[role], group.full_names[role]
    reason = _fixed(role, spec)
    kind, sure = ("buffer", UNIQUE if spec.dtype in _WHOLE else AGREED) if reason else ("parameter", SHAPE)
    why = reason or "no layer stores a tensor of this name and shape; analysed as it is"
    return replace(group.layer(kind, same(role), spec.shape, sure, why), name=name)


def _fixed(role: str, spec: TensorSpec) -> str | None:
    if spec.dtype in _WHOLE or spec.dtype == "bool":
        return f"{spec.dtype} values are not trained"
    if not spec.shape:
        return "a single number"
    return "the name says a fixed tensor" if _FIXED.fullmatch(role) else None
