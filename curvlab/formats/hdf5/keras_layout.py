"""Keras' variables in torch's layouts: which layer and role a path of an HDF5 file is, and how its numbers turn.

Keras keeps kernels with their outputs last and images with their channels last; torch keeps outputs first:

| Keras | torch |
|---|---|
| Dense (in, out) | (out, in) |
| Conv (k…, in, out) | (out, in, k…) |
| ConvTranspose (k…, out, in) | (in, out, k…) |
| Depthwise (k…, c, m) | (c·m, 1, k…) |
| LSTM (in, 4h), gates i, f, c, o | (4h, in), gates i, f, g, o: the same |
| GRU (in, 3h), gates z, r, h | (3h, in), gates r, z, n |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

Shape = tuple[int, ...]
Turn = Callable[[Tensor], Tensor]


class Placed(NamedTuple):
    """Where one variable of a layer goes.

    Attributes:
        part: name of the layer within the layer ("" itself, "depthwise", "pointwise").
        role: as torch calls it ("weight", "bias", "running_mean", "weight_ih_l0").
        variable: as Keras calls it.
        turn: from Keras' layout to torch's.
    """

    part: str
    role: str
    variable: str
    turn: Turn

    def shape(self, stored: Shape) -> Shape:
        """The shape of the turned tensor."""
        return tuple(self.turn(torch.empty(stored, device="meta")).shape)


# Names of a layer's variables in the order in which files of Keras 3 number them.
_NUMBERED = (
    (r"dense|conv[123]d(transpose)?|depthwiseconv[12]d|einsumdense", ("kernel", "bias")),
    (r"separableconv[12]d", ("depthwise_kernel", "pointwise_kernel", "bias")),
    (r"embedding", ("embeddings",)),
    (r"(lstm|gru|simplernn)(cell)?", ("kernel", "recurrent_kernel", "bias")),
    (r"layernormalization|groupnormalization", ("gamma", "beta")),
    (r"rmsnormalization", ("scale",)),
    (r"prelu", ("alpha",)),
    (r"normalization", ("mean", "variance", "count")),
)
_DENSE_OF_ATTENTION = re.compile(r"(query|key|value|output|attentionoutput)(dense)?")


def plain_class(name: str) -> str:
    """`"Conv2DTranspose"` and `"conv2d_transpose_3"` → `"conv2dtranspose"`."""
    return re.sub(r"_[0-9]+$", "", name).replace("_", "").lower()


def numbered(kind: str, shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Number -> name of the variables "0", "1", … of a layer of Keras 3; of an unknown class, as far as shapes tell.

    Args:
        kind: the layer's class as `plain_class` writes it.
        shapes: of the variables.
    """
    count = len(shapes)
    if kind == "batchnormalization":
        # One trained vector: Keras' own networks leave out the scale (a ReLU follows), so it is the offset.
        trained = {4: ("gamma", "beta"), 3: ("beta",), 2: ()}.get(count, ("gamma", "beta"))
        names: tuple[str, ...] = (*trained, "moving_mean", "moving_variance")
    elif found := [names for pattern, names in _NUMBERED if re.fullmatch(pattern, kind)]:
        names = found[0]
    elif _DENSE_OF_ATTENTION.fullmatch(kind) and shapes.get("0") and len(shapes["0"]) in (2, 3):
        names = ("kernel", "bias")
    elif _gates(shapes.get("0"), shapes.get("1")) and count <= 3:
        names = ("kernel", "recurrent_kernel", "bias")
    else:
        names = _by_shape(
            [shapes[str(i)] for i in range(count)] if shapes.keys() == set(map(str, range(count))) else []
        )
    return dict(zip(map(str, range(count)), names, strict=False))


def _by_shape(shapes: list[Shape]) -> tuple[str, ...]:
    """Names of the variables of a layer whose class is not known (an attribute of a user's own network)."""
    if len(shapes) in (2, 4) and len(shapes[0]) == 1 and set(shapes) == {shapes[0]}:
        return ("gamma", "beta", "moving_mean", "moving_variance")[: len(shapes)]
    if len(shapes) == 2 and len(shapes[0]) > 1 and shapes[1] in (shapes[0][-1:], shapes[0][-2:-1]):
        return ("kernel", "bias")
    return ("kernel",) if len(shapes) == 1 and len(shapes[0]) > 2 else ()


def placed(kind: str, shapes: Mapping[str, Shape], reverse: bool = False) -> list[Placed]:
    """Every variable of one layer in its place; what is not recognised keeps its name and layout.

    Args:
        kind: the layer's class as `plain_class` writes it, or what stands for it in its path.
        shapes: Keras' name of a variable -> its shape.
        reverse: the layer is the backward half of a Bidirectional.
    """
    found = list(_recognised(kind, shapes, "_reverse" if reverse else ""))
    taken = {place.variable for place in found}
    return found + [Placed("", name, name, _as_it_is) for name in shapes if name not in taken]


def _recognised(kind: str, shapes: Mapping[str, Shape], suffix: str) -> Iterator[Placed]:
    kernel, bias = shapes.get("kernel"), shapes.get("bias")
    if gates := _gates(kernel, shapes.get("recurrent_kernel")):
        yield from _recurrent(gates, shapes, suffix)
    elif "depthwise_kernel" in shapes:
        part = "depthwise" if "pointwise_kernel" in shapes else ""
        yield Placed(part, "weight", "depthwise_kernel", _depthwise)
        if part:
            yield Placed("pointwise", "weight", "pointwise_kernel", _convolution)
        if bias:
            yield Placed("pointwise" if part else "", "bias", "bias", _as_it_is)
    elif kernel is not None and len(kernel) >= 2:
        turn = _kernel(kind, kernel, bias)
        if turn is not None:
            yield Placed("", "weight", "kernel", turn)
            if bias:
                yield Placed("", "bias", "bias", _flat)
    elif shapes.keys() <= {"gamma", "beta", "moving_mean", "moving_variance"} or kind in ("prelu", "rmsnormalization"):
        names = {"moving_mean": "running_mean", "moving_variance": "running_var", "gamma": "weight", "beta": "bias"}
        for name in shapes:
            yield Placed("", names.get(name, "weight"), name, _squeezed if name == "alpha" else _as_it_is)
    elif len(shapes.get("embeddings", ())) == 2:
        yield Placed("", "weight", "embeddings", _as_it_is)


def _kernel(kind: str, kernel: Shape, bias: Shape | None) -> Turn | None:
    axes = len(kernel)
    if axes == 2:
        return _dense
    if axes == 3 and kind in ("attentionoutput", "outputdense"):
        return _from_heads
    # A convolution may be called "key" too, but its bias has one axis.
    if axes == 3 and _DENSE_OF_ATTENTION.fullmatch(kind) and (bias is None or len(bias) == 2):
        return _to_heads
    if kind.startswith("depthwiseconv"):
        return _depthwise
    if axes > 5 or kind == "einsumdense":
        return None
    return _convolution  # the transposed convolution's (k…, out, in) goes the same way, to (in, out, k…)


def _gates(kernel: Shape | None, recurrent: Shape | None) -> int:
    """Gates of a recurrent layer, 0 where the shapes are of something else."""
    if kernel is None or recurrent is None or len(kernel) != 2 or len(recurrent) != 2 or not recurrent[0]:
        return 0
    gates, rest = divmod(recurrent[1], recurrent[0])
    return gates if not rest and gates in (1, 3, 4) and kernel[1] == recurrent[1] else 0


def _recurrent(gates: int, shapes: Mapping[str, Shape], suffix: str) -> Iterator[Placed]:
    turn = _reset_first if gates == 3 else _dense
    yield Placed("", f"weight_ih_l0{suffix}", "kernel", turn)
    yield Placed("", f"weight_hh_l0{suffix}", "recurrent_kernel", turn)
    bias = shapes.get("bias")
    if bias is None:
        return
    if len(bias) == 2 and gates == 3:
        yield Placed("", f"bias_ih_l0{suffix}", "bias", _input_bias)
        yield Placed("", f"bias_hh_l0{suffix}", "bias", _recurrent_bias)
    else:
        yield Placed("", f"bias_ih_l0{suffix}", "bias", _gates_reset_first if gates == 3 else _as_it_is)


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1)


def _squeezed(x: Tensor) -> Tensor:
    return x.reshape(-1) if x.numel() == x.shape[-1] else x


def _dense(x: Tensor) -> Tensor:
    return x.mT


def _to_heads(x: Tensor) -> Tensor:
    return x.flatten(1).mT


def _from_heads(x: Tensor) -> Tensor:
    return x.flatten(0, 1).mT


def _convolution(x: Tensor) -> Tensor:
    return x.movedim((-1, -2), (0, 1))


def _depthwise(x: Tensor) -> Tensor:
    return x.flatten(-2)[None].movedim(-1, 0)


def _reset_first(x: Tensor) -> Tensor:
    """(in, 3h) with gates z, r, h → (3h, in) with gates r, z, n."""
    return _gates_reset_first(x.mT)


def _gates_reset_first(x: Tensor) -> Tensor:
    update, reset, new = x.chunk(3)
    return torch.cat([reset, update, new])


def _input_bias(x: Tensor) -> Tensor:
    return _gates_reset_first(x[0])


def _recurrent_bias(x: Tensor) -> Tensor:
    return _gates_reset_first(x[1])
