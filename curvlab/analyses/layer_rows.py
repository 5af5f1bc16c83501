"""LayerRow: the rows of a report, in the model's own order: its layers, and whatever else holds parameters, with the
reason why no layer does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from curvlab.capture.survey import LayerBlock, Survey, adapters
from curvlab.formats.checkpoint import Checkpoint
from curvlab.formats.inference.stacked_experts import KIND, Stack, find_stacks
from curvlab.layers.layer import Layer
from curvlab.layers.viewed import ViewedLayer


@dataclass(frozen=True)
class LayerRow:
    """One row: a layer with its main weight.

    Attributes:
        name: of the layer.
        kind: what it is.
        weight: its main tensor's name.
        tensors: names of all its tensors that are parameters.
        transposed: the weight is stored (in, out).
        groups: of a grouped convolution.
        confidence: 1 for a layer that ran; less where names and shapes were all there was.
        evidence: why names and shapes say so, or None.
        block: the block that was recorded, or None.
        reason: why there is no block, or None.
        layer: the adapter, which knows the order that weights are stored in; None where names and shapes were all.
        part: place along the first axis of the tensors where that is all the row has of them (one expert of many);
            None for whole tensors.
        seen: shape of the part of the weight that a layer sees in a run, where it is not all of it.
    """

    name: str
    kind: str
    weight: str
    tensors: tuple[str, ...]
    transposed: bool = False
    groups: int = 1
    confidence: float = 1.0
    evidence: str | None = None
    block: LayerBlock | None = None
    reason: str | None = None
    layer: Layer | None = None
    part: int | None = None
    seen: tuple[int, ...] | None = None

    def shape(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Shape of the main weight."""
        return self.seen or (shapes[self.weight] if self.part is None else shapes[self.weight][1:])

    def size(self, tensor: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """How many entries of one of its tensors it has."""
        if self.block is not None and isinstance(self.block.layer, ViewedLayer) and self.seen is not None:
            return sum(self.block.layer.part_of(role) for role, n in self.block.parameters.items() if n == tensor)
        return prod(shapes[tensor]) // (1 if self.part is None else shapes[self.weight][0])

    def count(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Number of parameters."""
        return sum(self.size(name, shapes) for name in self.tensors)

    def matrix(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """W̄ without its bias, of tensors in an order that only the layer knows; there can be several of them."""
        assert self.layer is not None
        names = {} if self.block is None else self.block.parameters
        several = {role: tensors[name] for role, name in names.items() if role.startswith("weight ")}
        return self.layer.matrix(several or {"weight": self.stored(tensors)}).flatten(0, 1)

    def stored(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The main weight as it is stored."""
        weight = tensors[self.weight]
        return weight if self.part is None else weight[self.part]


def rows_of_module(module: nn.Module, found: Survey | None) -> list[LayerRow]:
    """Blocks of a survey, and the modules and parameters that are in none."""
    names = [name for name, _ in module.named_parameters()]
    order = {name: i for i, name in enumerate(names)}
    rows: list[LayerRow] = []
    covered: set[str] = set()
    for name, layer, roles, block in _maps(module, found):
        parameters = tuple(roles.values())
        if found is None and covered.issuperset(parameters):
            continue  # a second use of a tied module
        main = roles.get("weight", parameters[0])
        seen = _seen(layer)
        rows.append(
            LayerRow(
                name,
                layer.kind,
                main,
                parameters,
                not layer.by_rows,
                layer.groups,
                block=block,
                layer=layer,
                seen=seen,
            )
        )
        covered.update(parameters)
    by_owner: dict[str, list[str]] = {}
    for name in names:
        if name not in covered:
            by_owner.setdefault(name.rpartition(".")[0], []).append(name)
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    stacks = {n: s for n, s in find_stacks(shapes).items() if covered.isdisjoint(s.tensors)} if by_owner else {}
    for owner, parameters_left in by_owner.items():
        own = [stacks[name] for name in parameters_left if name in stacks]
        for stack in own:
            reason = None if found is None else _reason(owner, list(stack.tensors), found)
            rows.extend(rows_of_stack(stack, reason=reason))
        stacked = {name for stack in own for name in stack.tensors}
        rows.extend(_unrecorded(module, owner, [name for name in parameters_left if name not in stacked], found))
    return sorted(rows, key=lambda row: order[row.tensors[0]])


def _seen(layer: Layer) -> tuple[int, ...] | None:
    """The shape of what a layer sees of a weight that has more entries."""
    if not isinstance(layer, ViewedLayer) or not layer.partial or "weight" not in layer.parameters:
        return None
    if layer.place is not None:
        return tuple(layer.parameters["weight"].shape[1:])
    if "weight" in layer.inner.parameters:
        return tuple(layer.inner.parameters["weight"].shape)
    return None


def _maps(module: nn.Module, found: Survey | None) -> Iterator[tuple[str, Layer, Mapping[str, str], LayerBlock | None]]:
    """(name, layer, role -> parameter's name, block): what ran, or without a survey what has an adapter."""
    if found is not None:
        for block in found.blocks.values():
            yield block.name, block.layer, block.parameters, block
        return
    names = {id(p): name for name, p in module.named_parameters()}
    for name, made in adapters(module)[0].items():
        for part, layer in {"": made}.items() if isinstance(made, Layer) else made.layers.items():
            roles = {role: names[id(p)] for role, p in layer.parameters.items()}
            yield ".".join(filter(None, (name, part))), layer, roles, None


def rows_of_stack(stack: Stack, reason: str | None = None) -> list[LayerRow]:
    """A row for every expert; `reason` says why nothing of it was recorded."""
    return [
        LayerRow(
            stack.expert(number),
            "Linear",
            stack.weight,
            stack.tensors,
            stack.transposed,
            confidence=stack.confidence,
            evidence=stack.evidence,
            reason=reason,
            part=number,
        )
        for number in range(stack.shape[0])
    ]


def _unrecorded(module: nn.Module, owner: str, parameters: list[str], found: Survey | None) -> list[LayerRow]:
    if not parameters:
        return []
    sub = module.get_submodule(owner)
    reason = None if found is None else _reason(owner, parameters, found)
    weight = f"{owner}.weight" if owner else "weight"
    if weight in parameters:
        own = sub.get_parameter("weight")
        # A 1-D weight scales channels: as a matrix it is diagonal.
        groups = own.numel() if own.ndim == 1 else int(getattr(sub, "groups", 1))
        transposed = isinstance(sub, nn.Embedding)
        return [LayerRow(owner, type(sub).__name__, weight, tuple(parameters), transposed, groups, reason=reason)]
    return [LayerRow(p, f"{type(sub).__name__} parameter", p, (p,), reason=reason) for p in parameters]


def _reason(owner: str, parameters: list[str], found: Survey) -> str:
    for name in [*parameters, owner, *_parents(owner)]:
        if name in found.refused:
            return found.refused[name]
    return "no adapter knows this module: its parameters are not part of a known affine map"


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(len(parts) - 1, 0, -1)] + [""]


_DIAGONAL = ("BatchNorm", "LayerNorm", "GroupNorm", "LayerNorm/GroupNorm", "RMSNorm", "RMSNorm/PReLU", "PReLU")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def rows_of_file(checkpoint: Checkpoint) -> list[LayerRow]:
    """The layers that names and shapes tell, buffers left out; recurrent and attention layers have a row per matrix."""
    rows = []
    for layer in checkpoint.layers:
        tensors = {role: name for role, name in layer.tensors.items() if role not in _STATISTICS}
        if layer.kind == "buffer" or not tensors:
            continue
        if layer.kind == KIND:
            weight, bias = tensors["weight"], tensors.get("bias")
            stack = Stack(weight, bias, layer.shape, layer.transposed, layer.confidence, layer.evidence)
            rows.extend(rows_of_stack(stack))
            continue
        reason = layer.evidence if layer.kind == "packed" else None
        matrices = {role: name for role, name in tensors.items() if len(checkpoint.shapes[name]) > 1}
        parts = {name: (role, name) for role, name in matrices.items()} if len(matrices) > 1 else {}
        for main, (role, _) in parts.items() or [(next(iter(tensors.values())), ("", ""))]:
            name = ".".join(part for part in (layer.name, role) if part)
            own = tuple(t for r, t in tensors.items() if not role or r in (role, role.replace("weight", "bias")))
            groups = prod(checkpoint.shapes[main]) if layer.kind in _DIAGONAL else 1
            rows.append(
                LayerRow(
                    name,
                    layer.kind,
                    main,
                    own,
                    layer.transposed,
                    groups,
                    layer.confidence,
                    layer.evidence,
                    reason=reason,
                )
            )
    return rows


def tensors_of(checkpoint: Checkpoint, module: nn.Module | None) -> Mapping[str, Tensor]:
    """Where the rows' tensors are: the module's parameters, or the file."""
    return checkpoint.tensors if module is None else {n: p.detach() for n, p in module.named_parameters()}
