"""PreconditionerBlock: what one operator acts on, a layer's matrix W̄ or one parameter tensor, with every use of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.capture.batch_record import BatchRecord
from curvlab.capture.survey import LayerBlock, Survey, components
from curvlab.errors import CurvlabError
from curvlab.layers.viewed import ViewedLayer


@dataclass(frozen=True)
class Use:
    """One use of the block's parameters in the network.

    Attributes:
        block: the layer there.
        role: the parameter's role in that layer; None where the use is of the whole matrix W̄.
        transposed: whether the layer there multiplies with Wᵀ: an embedding table that is the output layer as well.
        part: whether only the part of the parameter that the layer sees is looked at.
    """

    block: LayerBlock
    role: str | None = None
    transposed: bool = False
    part: bool = False


@dataclass(frozen=True)
class PreconditionerBlock:
    """The matrix W̄ `[g, o, i (+1)]` of a layer, or one parameter tensor with its modes.

    Attributes:
        name: of the layer, or of the parameter.
        uses: where it is used; the first tells how the tensor is put together. Empty for a parameter that only its
            gradient is known of.
        parameters: role -> parameter name.
        shape: of the tensor the operator acts on.
    """

    name: str
    uses: tuple[Use, ...]
    parameters: Mapping[str, str]
    shape: tuple[int, ...]

    @property
    def block(self) -> LayerBlock | None:
        """The layer of the first use."""
        return self.uses[0].block if self.uses else None

    @property
    def is_matrix(self) -> bool:
        """Whether it is a layer's whole matrix W̄ and not a tensor by itself."""
        return bool(self.uses) and self.uses[0].role is None

    @property
    def is_part(self) -> bool:
        """Whether it is a layer's matrix of which the parameters have more entries."""
        return self.is_matrix and not self.uses[0].block.layer.whole

    def assemble(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The block's tensor from tensors by parameter name."""
        if self.is_matrix:
            layer = self.uses[0].block.layer
            return layer.matrix({role: tensors[name] for role, name in self.parameters.items()})
        (name,) = self.parameters.values()
        return tensors[name].reshape(self.shape)

    def take_apart(self, tensor: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `assemble`; `like` gives the parameters' shapes."""
        if self.is_matrix:
            layer = self.uses[0].block.layer
            return {self.parameters[role]: part for role, part in layer.split(tensor).items()}
        (name,) = self.parameters.values()
        return {name: tensor.reshape(like[name].shape)}


def matrix_block(block: LayerBlock, *others: Use) -> PreconditionerBlock:
    """W̄ of a layer, and further uses of it."""
    layer = block.layer
    shape = (layer.groups, layer.out_features, layer.in_features + layer.biased)
    return PreconditionerBlock(block.name, (Use(block), *others), dict(block.parameters), shape)


def all_matrices(found: Survey | None) -> list[PreconditionerBlock]:
    """W̄ = [W b] of every layer, each use by itself."""
    return [matrix_block(block) for block in (found.blocks.values() if found is not None else ())]


def layer_matrices(found: Survey | None) -> list[PreconditionerBlock]:
    """W̄ = [W b] of every layer that is a dense map (more than one output or input), each use by itself."""
    return [one for one in all_matrices(found) if is_dense(one)]


def is_dense(one: PreconditionerBlock) -> bool:
    """Whether a layer's matrix has more than one output or input; the scales of norms have not."""
    layer = one.uses[0].block.layer
    return layer.out_features > 1 or layer.in_features > 1


def tied_matrices(found: Survey | None) -> list[PreconditionerBlock]:
    """W̄ of every layer, those that share parameters as one: the largest of them, with the uses by the others.

    Parts of a parameter (experts, the queries of a fused weight) have a block each, where together they are all of it.
    A layer that shares its weight in another shape, or in part, would be counted wrongly: such parameters have no
    block, and follow the plain gradient.
    """
    if found is None:
        return []
    made: list[PreconditionerBlock] = []
    for group in components(found.blocks):
        blocks = sorted((found.blocks[name] for name in group), key=lambda block: -len(block.parameters))
        if any(block.layer.road for block in blocks):
            continue  # some use is no affine map, and would be missing
        if not all(block.layer.whole for block in blocks):
            if _is_partition(blocks):
                made += [matrix_block(block) for block in blocks]
            continue
        taken: set[str] = set()
        for block in blocks:
            if taken.isdisjoint(block.parameters.values()):
                uses = [_use(block, other) for other in blocks if other is not block and _share(block, other)]
                if all(use is not None for use in uses):
                    made.append(matrix_block(block, *(use for use in uses if use is not None)))
            taken.update(block.parameters.values())
    order = list(found.blocks)
    return sorted(made, key=lambda one: order.index(one.name))


def whole_block(found: Survey, block: LayerBlock) -> PreconditionerBlock:
    """W̄ of one layer, with the uses of its parameters by other layers, whatever their shapes there."""
    others = [found.blocks[name] for name in block.tied if name in found.blocks]
    return matrix_block(block, *(Use(other) for other in others))


def parameter_tensors(found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
    """One block per trainable parameter of a layer, with the modes it has there and all of its uses."""
    uses: dict[str, list[Use]] = {}
    for block in found.blocks.values() if found is not None else ():
        for role, parameter in block.parameters.items():
            uses.setdefault(parameter, []).append(Use(block, role))
    made = []
    for name in [name for name in parameters if name in uses]:
        first = uses[name][0]
        assert first.role is not None
        shape = first.block.layer.modes(first.role)
        made.append(PreconditionerBlock(name, tuple(uses[name]), {first.role: name}, shape))
    return made


def shown_tensors(found: Survey, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
    """As `parameter_tensors`, but with a tensor of its own for every part of a parameter that a layer is of."""
    parts = [block for block in found.blocks.values() if isinstance(block.layer, ViewedLayer) and block.layer.partial]
    names = {block.name for block in parts}
    whole = {name: block for name, block in found.blocks.items() if name not in names}
    made = parameter_tensors(Survey(found.modules, whole, found.refused, found.block_of), parameters)
    for block in parts:
        layer = block.layer
        assert isinstance(layer, ViewedLayer)
        for role in layer.inner.parameters:
            name = f"{block.name} {role}" if role != "weight" else block.name
            shape = layer.inner.modes(role)
            made.append(PreconditionerBlock(name, (Use(block, role, part=True),), {role: name}, shape))
    return made


def _is_partition(blocks: Sequence[LayerBlock]) -> bool:
    """Whether every entry of every parameter is in one of the layers, once."""
    seen: dict[str, Tensor] = {}
    for block in blocks:
        layer = block.layer
        ones = layer.matrix({role: torch.ones_like(p) for role, p in layer.parameters.items()})
        for role, part in layer.split(ones).items():
            name = block.parameters[role]
            seen[name] = seen[name] + part if name in seen else part
    return all(bool((count == 1).all()) for count in seen.values())


def _share(a: LayerBlock, b: LayerBlock) -> bool:
    return not set(a.parameters.values()).isdisjoint(b.parameters.values())


def _use(block: LayerBlock, other: LayerBlock) -> Use | None:
    """How `other` uses W̄ of `block`; None where it cannot be told."""
    mine, theirs = block.layer, other.layer
    if isinstance(mine, ViewedLayer) or isinstance(theirs, ViewedLayer):
        return _seen_use(block, other)
    if mine.groups != theirs.groups or block.parameters.get("weight") != other.parameters.get("weight"):
        return None
    shape = (theirs.out_features, theirs.in_features)
    if shape == (mine.out_features, mine.in_features) and mine.by_rows == theirs.by_rows:
        return Use(other)
    if shape == (mine.in_features, mine.out_features) and mine.groups == 1 and mine.by_rows != theirs.by_rows:
        return Use(other, transposed=True)
    return None


def _seen_use(block: LayerBlock, other: LayerBlock) -> Use | None:
    """How `other` uses W̄ of `block`, from what both make of a weight with different entries."""
    name = block.parameters.get("weight")
    if name is None or other.parameters.get("weight") != name or block.layer.groups != other.layer.groups:
        return None
    weight = block.layer.parameters["weight"]
    marked = torch.arange(weight.numel(), dtype=torch.float64, device=weight.device).reshape(weight.shape)
    mine, theirs = (one.layer.matrix({"weight": marked}) for one in (block, other))
    if torch.equal(mine, theirs):
        return Use(other)
    return Use(other, transposed=True) if mine.shape[0] == 1 and torch.equal(mine.mT, theirs) else None


def using(blocks: Iterable[PreconditionerBlock]) -> dict[str, list[PreconditionerBlock]]:
    """Layer -> the blocks that use it."""
    found: dict[str, list[PreconditionerBlock]] = {}
    for block in blocks:
        for layer in dict.fromkeys(use.block.name for use in block.uses):
            found.setdefault(layer, []).append(block)
    return found


def refuse_unmeasured(name: str, blocks: Iterable[PreconditionerBlock], record: BatchRecord) -> None:
    """A block with a gradient that was not seen running would follow the plain gradient under the method's name.

    Raises:
        CurvlabError: there is one; `name` is the method's.
    """
    for one in blocks:
        ran = any(use.block.name in record.inputs for use in one.uses)
        if not ran and one.is_part and not one.assemble(record.gradients).any():
            continue  # an expert that no row went to
        if not ran and any(parameter in record.gradients for parameter in one.parameters.values()):
            raise CurvlabError(
                f"{name}: the layer '{one.name}' has a gradient, but was not seen running in this batch",
                "its curvature cannot be measured where another function runs in the module's place",
                "call the model that the optimizer was given",
            )
