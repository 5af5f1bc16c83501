"""Linear and embedding layers: a matrix, whose bias tells which axis is the output."""

from __future__ import annotations

from dataclasses import replace

from curvlab.formats.checkpoint import InferredLayer
from curvlab.formats.inference.layer_group import AGREED, SHAPE, SPLIT, UNIQUE, Group, Rule, same

_EMBEDDING = frozenset(
    {"emb", "embed", "embedding", "embeddings", "embedder", "wte", "wpe", "token", "tokens", "position", "positions"}
    | {"positional", "vocab", "vocabulary", "lookup"}
)
# `embed_out` and `embed_proj` are Linear layers at either end of an embedding.
_NO_EMBEDDING = frozenset({"out", "output", "head", "proj", "projection", "linear"})
_SURE_EMBEDDING = frozenset({"emb", "embed", "embedding", "embeddings", "wte", "wpe"})


def linear(group: Group) -> InferredLayer | None:
    """A 2-D weight with a bias: as long as the rows it is a Linear, as long as the columns its transpose."""
    for weight in ("weight", "kernel"):
        shape, bias = group.shape(weight), group.shape("bias")
        if shape is None or len(shape) != 2 or bias is None or len(bias) != 1:
            continue
        rows, columns = shape
        roles = {"weight": weight, "bias": "bias"}
        # `kernel` is what Keras and Flax call a matrix stored as (in, out).
        if bias[0] == rows and (rows != columns or weight == "weight"):
            sure = UNIQUE if rows != columns else AGREED
            square = ", as it does the columns" if rows == columns else ""
            return group.layer(
                "Linear", roles, shape, sure, f"bias length {rows} equals the rows of {weight} {shape}{square}"
            )
        if bias[0] == columns:
            why = f"bias length {columns} equals the columns of {weight} {shape}: stored as (in, out)"
            return replace(group.layer("Linear", roles, shape, AGREED, why), transposed=True)
    return None


def matrix_alone(group: Group) -> InferredLayer | None:
    """A 2-D weight without bias: an Embedding if the file or the name says so, else a Linear."""
    if (table := group.shape("embedding")) is not None and len(table) == 2:
        return group.layer("Embedding", {"weight": "embedding"}, table, AGREED, f"a table {table} called embedding")
    for weight in ("weight", "kernel"):
        shape = group.shape(weight)
        if shape is None or len(shape) != 2 or "bias" in group.specs:
            continue
        if weight in group.tables:
            why = f"weight {shape}, which the file stores as embeddings"
            return group.layer("Embedding", same("weight"), shape, AGREED, why)
        if weight == "weight" and group.says(_EMBEDDING) and not group.says(_NO_EMBEDDING):
            sure = AGREED if group.says(_SURE_EMBEDDING) else SHAPE
            return group.layer(
                "Embedding", same("weight"), shape, sure, f"weight {shape} without bias, named as an embedding"
            )
        if weight == "weight":
            why = f"weight {shape} without bias, not named as an embedding"
            return group.layer("Linear", same("weight"), shape, SHAPE, why)
        why = f"kernel {shape} without bias: stored as (in, out) where Keras or Flax wrote it"
        return replace(group.layer("Linear", {"weight": "kernel"}, shape, SPLIT, why), transposed=True)
    return None


def underscored(group: Group) -> InferredLayer | None:
    """`fc1_weight` and `fc1_bias` side by side: the layer's name is what stands before the underscore."""
    for role in group.specs:
        base = role.removesuffix("_weight")
        weight, bias = group.shape(role), group.shape(f"{base}_bias")
        if base != role and weight and bias and len(weight) == 2 and bias == weight[:1]:
            why = f"bias length {bias[0]} equals the rows of {role} {weight}"
            layer = group.layer("Linear", {"weight": role, "bias": f"{base}_bias"}, weight, AGREED, why)
            return replace(layer, name=f"{group.name}.{base}" if group.name else base)
    return None


RULES: tuple[Rule, ...] = (linear, matrix_alone, underscored)
