"""Convolutions with constant kernels: nn.Conv1d/2d/3d and nn.ConvTranspose1d/2d/3d.

torch pads both sides alike; any other padding is put around the input before the module is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from curvlab.formats.onnx.layers.plan import Constants, Recognised, Role, Shape, recogniser
from curvlab.formats.onnx.operators.convolution import transposed_padding, with_padding
from curvlab.formats.onnx.operators.geometry import Window, window
from curvlab.formats.onnx.operators.shapes import padded
from curvlab.formats.onnx.reading.graph import Node

_CONV: dict[int, Any] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d}
_KNOWN = frozenset({"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"})


def _roles(node: Node, graph: Constants, channels: int) -> dict[str, Role] | None:
    """Weight and bias, if both are constants of the right shapes."""
    weight, bias = graph.weight(node, 1), graph.weight(node, 2)
    if weight is None or len(weight.shape) not in _CONV or 0 in weight.shape:
        return None
    roles = {"weight": Role(node.inputs[1], weight.shape)}
    if graph.given(node, 2):
        if bias is None or bias.shape != (channels,) or bias.dtype != weight.dtype:
            return None
        roles["bias"] = Role(node.inputs[2], bias.shape)
    return roles


def _window(node: Node, sizes: Sequence[int], kernel: Shape) -> Window:
    told = node.attributes
    return window(
        sizes, kernel, told.get("strides"), told.get("dilations"), told.get("pads"), told.get("auto_pad", "NOTSET")
    )


@recogniser("Conv")
def conv(node: Node, graph: Constants) -> Recognised | None:
    """y = weight ∗ x + bias."""
    weight = graph.weight(node, 1)
    roles = None if weight is None else _roles(node, graph, weight.shape[0])
    group = node.attributes.get("group", 1)
    if roles is None or node.attributes.keys() - _KNOWN or group < 1:
        return None
    out, into, *kernel = roles["weight"].shape
    # The attribute repeats the weight's shape; where it does not, the node is for `convolution.conv` to refuse.
    if out % group or tuple(node.attributes.get("kernel_shape") or kernel) != tuple(kernel):
        return None
    fixed = node.attributes.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")

    def make(inputs: Sequence[Shape]) -> nn.Module | None:
        w = _window(node, inputs[0][2:], tuple(kernel))
        own = w.low if fixed and w.symmetric else 0
        module: nn.Module = _CONV[len(kernel) + 2](
            into * group, out, kernel, w.strides, own, w.dilations, group, bias="bias" in roles, device="meta"
        )
        return module

    def call(module: Any, inputs: Sequence[Tensor | None]) -> Tensor:
        (x,) = inputs
        assert x is not None
        if not any(module.padding):
            x = with_padding(x, _window(node, x.shape[2:], tuple(kernel)))
        y: Tensor = module(x)
        return y

    return Recognised(node, roles, make, call, node.inputs[:1], node.outputs)


@recogniser("ConvTranspose")
def conv_transpose(node: Node, graph: Constants) -> Recognised | None:
    """The transposed convolution; torch's module crops both sides alike, anything else is cropped from its output."""
    told, weight = node.attributes, graph.weight(node, 1)
    group = told.get("group", 1)
    roles = None if weight is None or len(weight.shape) < 3 else _roles(node, graph, weight.shape[1] * group)
    if roles is None or told.keys() - _KNOWN - {"output_padding", "output_shape"} or group < 1:
        return None
    into, out, *kernel = roles["weight"].shape
    if into % group or tuple(told.get("kernel_shape") or kernel) != tuple(kernel):
        return None
    plain = "output_shape" not in told and told.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")

    def crop(sizes: Sequence[int]) -> tuple[Shape, Shape, Shape]:
        return transposed_padding(
            sizes,
            kernel,
            told.get("strides"),
            told.get("dilations"),
            told.get("pads"),
            told.get("auto_pad", "NOTSET"),
            told.get("output_padding"),
            told.get("output_shape"),
        )

    def make(inputs: Sequence[Shape]) -> nn.Module | None:
        w = window(inputs[0][2:], kernel, told.get("strides"), told.get("dilations"), None, "NOTSET")
        low, high, more = crop(inputs[0][2:])
        own: tuple[Any, Any] = (0, 0)
        if plain and low == high and min(low) >= 0:
            own = (low, more)
        elif any(m > h for m, h in zip(more, high, strict=True)):
            return None  # what is added behind would need the bias
        module: nn.Module = _TRANSPOSED[len(kernel) + 2](
            into, out * group, kernel, w.strides, *own, group, "bias" in roles, w.dilations, device="meta"
        )
        return module

    def call(module: Any, inputs: Sequence[Tensor | None]) -> Tensor:
        (x,) = inputs
        assert x is not None
        y: Tensor = module(x)
        if any((*module.padding, *module.output_padding)):
            return y
        low, high, more = crop(x.shape[2:])
        sides = [-p for p in low] + [m - p for p, m in zip(high, more, strict=True)]
        return padded(y, sides, range(2, x.ndim), "constant") if any(sides) else y

    return Recognised(node, roles, make, call, node.inputs[:1], node.outputs)
