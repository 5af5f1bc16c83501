"""Layers from names and shapes alone: group the tensors, ask an ordered list of rules, say how sure each answer is.

The rules run from the most to the least telling, each taking what it recognises out of the group; the scale of
confidence stands in `layer_group`. Two things need more than one group and come last: which way round a square matrix
is stored, and which matrices are the query, key and value of one attention.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from curvlab.formats.checkpoint import InferredLayer
from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.inference import (
    fold_low_rank,
    fold_quantised,
    fold_reparametrised,
    rules_convolution,
    rules_leftover,
    rules_matrix,
    rules_norm,
    rules_recurrent,
)
from curvlab.formats.inference.attention import with_attention_evidence
from curvlab.formats.inference.fold import Fold
from curvlab.formats.inference.fold_low_rank import Scale
from curvlab.formats.inference.layer_group import SHAPE, Group, Rule
from curvlab.formats.inference.stacked_experts import KIND, Stack, find_stacks
from curvlab.formats.names import last_word, split

RULES: tuple[Rule, ...] = (
    rules_norm.batch_norm,
    *rules_recurrent.RULES,
    rules_leftover.packed,
    rules_leftover.fixed_transform,
    rules_leftover.causal_mask,
    *rules_norm.RULES,
    *rules_matrix.RULES,
    *rules_convolution.RULES,
)


@dataclass(frozen=True)
class Inference:
    """Layers in the order of the names given, and the weights that have to be put together: their name -> how."""

    layers: tuple[InferredLayer, ...]
    folds: Mapping[str, Fold]


def infer_layers(
    specs: Mapping[str, TensorSpec],
    tensors: Mapping[str, Tensor],
    tables: Collection[str] = (),
    experts: Collection[int] = (),
    scale: Scale | None = None,
) -> Inference:
    """What the tensors of a file are, as far as names and shapes tell.

    Args:
        specs: name -> shape and type, in the order in which layers should come out.
        tensors: the same names; read only for the zero points of packed integers.
        tables: names of tensors that the file says are embedding tables.
        experts: numbers of experts that a configuration beside the file names.
        scale: of low-rank updates, where a configuration beside the file says it.
    """
    folds = find_folds(specs, tensors, scale)
    stacks = find_stacks(_plain_shapes(specs, folds), experts)
    stacked = {name for stack in stacks.values() for name in stack.tensors}
    rest = {name: spec for name, spec in specs.items() if name not in stacked}
    layers = [layer for group in _groups(rest, folds, tables) for layer in _recognised(group)]
    if stacks:
        layers = _in_place(layers, stacks, list(specs), folds)
    return Inference(tuple(with_attention_evidence(_with_orientation_of_squares(layers))), folds)


def _plain_shapes(specs: Mapping[str, TensorSpec], folds: Mapping[str, Fold]) -> dict[str, tuple[int, ...]]:
    """Shapes of the floating-point tensors that are weights as they are."""
    parts = {source for fold in folds.values() for source in fold.sources}
    return {name: spec.shape for name, spec in specs.items() if spec.is_float and name not in parts}


def _in_place(
    layers: Sequence[InferredLayer], stacks: Mapping[str, Stack], order: Sequence[str], folds: Mapping[str, Fold]
) -> list[InferredLayer]:
    """The stacks among the other layers, each where its first tensor stands."""
    places = {name: place for place, name in enumerate(order)}
    places |= {name: min(places[source] for source in fold.sources) for name, fold in folds.items()}
    made = [
        InferredLayer(
            name=stack.name,
            kind=KIND,
            tensors=dict(zip(("weight", "bias"), stack.tensors, strict=False)),
            shape=stack.shape,
            confidence=stack.confidence,
            evidence=stack.evidence,
            transposed=stack.transposed,
        )
        for stack in stacks.values()
    ]
    return sorted([*layers, *made], key=lambda layer: min(places[name] for name in layer.tensors.values()))


def find_folds(
    specs: Mapping[str, TensorSpec], tensors: Mapping[str, Tensor], scale: Scale | None = None
) -> dict[str, Fold]:
    """Name in the checkpoint -> how to put the weight together; each stored tensor is a part of at most one."""
    folds: dict[str, Fold] = {}
    taken: set[str] = set()
    for finder in (*fold_reparametrised.FINDERS, *fold_low_rank.finders(scale), *fold_quantised.FINDERS):
        for fold in finder(specs, tensors):
            if taken.isdisjoint(fold.sources):
                taken.update(fold.sources)
                folds[fold.name_in(specs)] = fold
    return folds


def _groups(specs: Mapping[str, TensorSpec], folds: Mapping[str, Fold], tables: Collection[str]) -> list[Group]:
    """Tensors by layer, each layer where its first tensor stands; the parts of a fold give way to its result."""
    results = {source: name for name, fold in folds.items() for source in fold.sources}
    groups: dict[str, Group] = {}
    for stored, spec in specs.items():
        name = results.get(stored, stored)
        fold = folds.get(name)
        layer, role = (fold.layer, fold.role) if fold else split(name)
        group = groups.setdefault(layer, Group(layer))
        group.specs[role], group.full_names[role] = (fold.spec if fold else spec), name
        if name in tables:
            group.tables.add(role)
        if fold:
            group.evidence[role] = fold.evidence
    return list(groups.values())


def _recognised(group: Group) -> list[InferredLayer]:
    layers = []
    for rule in RULES:
        while group.specs and (layer := rule(group)) is not None:
            layers.append(layer)
            group = group.without(layer)
    return layers + [rules_leftover.single(group, role) for role in group.specs]


def _with_orientation_of_squares(layers: list[InferredLayer]) -> list[InferredLayer]:
    """A square matrix is stored as its namesakes are: GPT-2's `c_proj` is (3072, 768) here and (768, 768) there."""
    votes: dict[str, set[bool]] = defaultdict(set)
    for layer in layers:
        if layer.kind == "Linear" and "bias" in layer.tensors and layer.shape[0] != layer.shape[1]:
            votes[last_word(layer.name)].add(layer.transposed)
    return [
        replace(
            layer,
            transposed=True,
            confidence=SHAPE,
            evidence=f"{layer.evidence}; stored as (in, out) like the other layers named {last_word(layer.name)}",
        )
        if layer.kind == "Linear"
        and "bias" in layer.tensors
        and layer.shape[0] == layer.shape[1]
        and votes[last_word(layer.name)] == {True}
        else layer
        for layer in layers
    ]
