"""Normalisations with constant scales: nn.BatchNorm, InstanceNorm, GroupNorm, LayerNorm, RMSNorm; and nn.PReLU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from curvlab.formats.onnx.layers.plan import Constants, Recognised, Role, Shape, recogniser
from curvlab.formats.onnx.reading.graph import Node

_BATCH: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE: dict[int, Any] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def _roles(node: Node, graph: Constants, names: Sequence[str]) -> dict[str, Role] | None:
    """Inputs 1, 2, … as these tensors, if all that are there are constants."""
    roles = {}
    for index, name in enumerate(names, start=1):
        spec = graph.weight(node, index)
        if graph.given(node, index) and (spec is None or 0 in spec.shape):
            return None
        if spec is not None:
            roles[name] = Role(node.inputs[index], spec.shape)
    return roles if "weight" in roles else None


def _one_size(roles: dict[str, Role] | None) -> bool:
    """All tensors have one entry per channel."""
    return roles is not None and len({role.shape for role in roles.values()}) == 1 and len(roles["weight"].shape) == 1


def _recognised(
    node: Node, graph: Constants, roles: dict[str, Role], make: Callable[[Shape], nn.Module | None]
) -> Recognised | None:
    def call(module: nn.Module, inputs: Sequence[Tensor | None]) -> Tensor:
        result: Tensor = module(inputs[0])
        return result

    if not graph.unseen(node.outputs[1:]):
        return None
    return Recognised(node, roles, lambda inputs: make(inputs[0]), call, node.inputs[:1], node.outputs[:1])


@recogniser("BatchNormalization")
def batch_normalization(node: Node, graph: Constants) -> Recognised | None:
    """With its running statistics; momentum counts the new value in torch, the old one in ONNX."""
    roles = _roles(node, graph, ("weight", "bias", "running_mean", "running_var"))
    told = node.attributes
    if (
        roles is None
        or len(roles) != 4
        or not _one_size(roles)
        or told.get("training_mode")
        or not told.get("spatial", 1)
    ):
        return None
    (channels,) = roles["weight"].shape
    options = {"eps": told.get("epsilon", 1e-5), "momentum": 1 - told.get("momentum", 0.9), "device": "meta"}
    return _recognised(node, graph, roles, lambda x: _BATCH[len(x)](channels, **options) if len(x) in _BATCH else None)


@recogniser("InstanceNormalization")
def instance_normalization(node: Node, graph: Constants) -> Recognised | None:
    """Statistics of each example and channel."""
    roles = _roles(node, graph, ("weight", "bias"))
    if roles is None or len(roles) != 2 or not _one_size(roles):
        return None
    (channels,), eps = roles["weight"].shape, node.attributes.get("epsilon", 1e-5)
    return _recognised(
        node,
        graph,
        roles,
        lambda x: _INSTANCE[len(x)](channels, eps, affine=True, device="meta") if len(x) in _INSTANCE else None,
    )


@recogniser("GroupNormalization")
def group_normalization(node: Node, graph: Constants) -> Recognised | None:
    """One scale per channel (opset 21 on)."""
    roles = _roles(node, graph, ("weight", "bias"))
    groups = node.attributes.get("num_groups", 0)
    if roles is None or len(roles) != 2 or not _one_size(roles) or node.opset < 21 or groups < 1:
        return None
    (channels,), eps = roles["weight"].shape, node.attributes.get("epsilon", 1e-5)
    if channels % groups:
        return None
    return _recognised(node, graph, roles, lambda x: nn.GroupNorm(groups, channels, eps, device="meta"))


@recogniser("LayerNormalization")
def layer_normalization(node: Node, graph: Constants) -> Recognised | None:
    """Over the last axes, all of which the scale has."""
    roles = _roles(node, graph, ("weight", "bias"))
    if roles is None or len({role.shape for role in roles.values()}) != 1:
        return None
    shape, eps = roles["weight"].shape, node.attributes.get("epsilon", 1e-5)

    def make(x: Shape) -> nn.Module | None:
        if not _over_last_axes(node, x, shape):
            return None
        return nn.LayerNorm(shape, eps, bias="bias" in roles, device="meta")

    return _recognised(node, graph, roles, make)


@recogniser("RMSNormalization")
def rms_normalization(node: Node, graph: Constants) -> Recognised | None:
    """Over the last axes, all of which the scale has."""
    roles = _roles(node, graph, ("weight",))
    if roles is None:
        return None
    shape, eps = roles["weight"].shape, node.attributes.get("epsilon", 1e-5)

    def make(x: Shape) -> nn.Module | None:
        return nn.RMSNorm(list(shape), eps, device="meta") if _over_last_axes(node, x, shape) else None

    return _recognised(node, graph, roles, make)


def _over_last_axes(node: Node, x: Shape, scale: Shape) -> bool:
    axis = node.attributes.get("axis", -1)
    return bool(scale) and x[axis:] == scale


@recogniser("PRelu")
def prelu(node: Node, graph: Constants) -> Recognised | None:
    """One slope, or one per channel (axis 1)."""
    slope = graph.weight(node, 1)
    if slope is None or slope.elements == 0:
        return None
    roles = {"weight": Role(node.inputs[1], (slope.elements,), lambda s: s.reshape(-1))}

    def make(x: Shape) -> nn.Module | None:
        by_channel = len(x) > 1 and slope.shape in ((x[1], *(1,) * (len(x) - 2)), (1, x[1], *(1,) * (len(x) - 2)))
        if node.opset < 7:
            by_channel = by_channel or (len(x) > 1 and slope.shape == (x[1],))
        return nn.PReLU(slope.elements, device="meta") if slope.elements == 1 or by_channel else None

    return _recognised(node, graph, roles, make)
