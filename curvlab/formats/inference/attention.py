"""Query, key and value matrices told by their names, among layers already recognised."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from curvlab.formats.checkpoint import InferredLayer
from curvlab.formats.names import split

_SIBLINGS = (
    ("q", "k", "v"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("to_q", "to_k", "to_v"),
    ("wq", "wk", "wv"),
    ("query", "key", "value"),
    ("query_proj", "key_proj", "value_proj"),
)
_FUSED = frozenset({"qkv", "qkv_proj", "c_attn", "query_key_value", "to_qkv", "wqkv", "w_pack", "attn_qkv"})


def with_attention_evidence(layers: list[InferredLayer]) -> list[InferredLayer]:
    """The same layers; those that form an attention say so, with what the shapes tell about its heads.

    They stay Linear layers, which they are: each is profiled by itself. How many heads share a matrix is nowhere in a
    file of weights.
    """
    children: dict[str, dict[str, InferredLayer]] = defaultdict(dict)
    for layer in layers:
        if layer.kind == "Linear":
            parent, own = split(layer.name)
            children[parent][own.lower()] = layer
    evidence: dict[str, str] = {}
    for parent, by_name in children.items():
        for names in _SIBLINGS:
            if all(name in by_name for name in names):
                query, key, value = (by_name[name] for name in names)
                shared = _shared_keys(query, key)
                for layer, part in ((query, "query"), (key, "key"), (value, "value")):
                    evidence[layer.name] = f"{part} of the attention {parent}{shared}"
        for name in _FUSED & by_name.keys():
            evidence[by_name[name].name] = _fused(by_name[name])
    return [
        replace(layer, evidence=f"{layer.evidence}; {evidence[layer.name]}") if layer.name in evidence else layer
        for layer in layers
    ]


def _outputs_inputs(layer: InferredLayer) -> tuple[int, int]:
    rows, columns = layer.shape
    return (columns, rows) if layer.transposed else (rows, columns)


def _shared_keys(query: InferredLayer, key: InferredLayer) -> str:
    (queries, _), (keys, _) = _outputs_inputs(query), _outputs_inputs(key)
    if queries == keys:
        return ""
    return f", grouped-query: {queries} query and {keys} key outputs (the number of heads is in the configuration)"


def _fused(layer: InferredLayer) -> str:
    outputs, inputs = _outputs_inputs(layer)
    if outputs == 3 * inputs:
        return f"query, key and value in one matrix: {outputs} outputs = 3 · {inputs} inputs"
    return f"query, key and value in one matrix of {outputs} outputs, grouped-query or of another width than its input"
