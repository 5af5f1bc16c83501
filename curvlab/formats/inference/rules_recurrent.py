"""Recurrent layers and attention: several matrices under one name."""

from __future__ import annotations

import re

from curvlab.formats.checkpoint import InferredLayer
from curvlab.formats.inference.layer_group import UNIQUE, Group, Rule, same

_GATES = {4: "LSTM", 3: "GRU", 1: "RNN"}
_PARTS = [("weight", "ih"), ("weight", "hh"), ("weight", "hr"), ("bias", "ih"), ("bias", "hh"), ("bias", "hr")]
_ROLE = re.compile(r"(weight|bias)_(ih|hh|hr)(?P<layer>_l(?P<depth>[0-9]+)(?P<reverse>_reverse)?)?")


def recurrent(group: Group) -> InferredLayer | None:
    """`weight_ih` and `weight_hh`: their rows are the gates times the hidden size; a cell has no `_l0`."""
    for suffix, cell in (("_l0", ""), ("", "Cell")):
        if f"weight_ih{suffix}" not in group.specs:
            continue
        ih, hh, hr = (group.shape(f"weight_{part}{suffix}") for part in ("ih", "hh", "hr"))
        if ih is None or hh is None or len(ih) != 2 or len(hh) != 2:
            continue
        hidden = hr[1] if hr is not None and len(hr) == 2 else hh[1]
        gates = ih[0] / hidden if hidden else 0
        if gates not in _GATES or hh[0] != ih[0]:
            continue
        found = [match for role in group.specs if (match := _ROLE.fullmatch(role))]
        depths = {match["depth"] for match in found if match["depth"]}
        parts = [f"{int(gates)} gate{'s' if gates > 1 else ''} of hidden size {hidden} ({ih[0]} rows)"]
        parts += [f"{len(depths)} layers"] if len(depths) > 1 else []
        parts += ["both directions"] if any(match["reverse"] for match in found) else []
        parts += [f"projected to {hr[0]}"] if hr is not None and not cell else []
        own = [match for match in found if bool(match["layer"]) != bool(cell)]
        roles = same(*(match.string for match in sorted(own, key=_place)))
        return group.layer(f"{_GATES[int(gates)]}{cell}", roles, ih, UNIQUE, ", ".join(parts))
    return None


def _place(match: re.Match[str]) -> tuple[int, bool, int]:
    """torch's own order: layer by layer, weights before biases, input before hidden."""
    return int(match["depth"] or 0), match["reverse"] is not None, _PARTS.index((match[1], match[2]))


def attention(group: Group) -> InferredLayer | None:
    """MultiheadAttention: `in_proj_weight` of 3·E rows, or separate weights where key and value sizes differ."""
    packed = group.shape("in_proj_weight")
    roles = same(
        "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "bias_k", "bias_v"
    )
    if packed is not None and len(packed) == 2 and packed[0] == 3 * packed[1]:
        why = f"in_proj_weight stacks query, key and value: {packed[0]} = 3 · {packed[1]}"
        return group.layer("MultiheadAttention", roles, packed, UNIQUE, why)
    query = group.shape("q_proj_weight")
    if query is not None and group.shape("k_proj_weight") and group.shape("v_proj_weight"):
        why = "q_proj_weight, k_proj_weight and v_proj_weight in one module"
        return group.layer("MultiheadAttention", roles, query, UNIQUE, why)
    return None


RULES: tuple[Rule, ...] = (recurrent, attention)
