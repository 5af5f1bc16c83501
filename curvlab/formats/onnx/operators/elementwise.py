"""Arithmetic on every element, with numpy's broadcasting; before opset 7 an attribute says where the shapes align."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from curvlab.formats.onnx.operators.table import Result, UnsupportedOperator, number, operator

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Log": torch.log,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}


def divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b; whole numbers are rounded towards zero."""
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def power(a: Tensor, b: Tensor) -> Tensor:
    """a ** b in the type of a."""
    return torch.pow(a, b).to(a.dtype)


# torch's own functions where they do: a layer's capture recognises them when one operand is a parameter.
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": divide,
    "Pow": power,
}


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Result]:
    def run(x: Tensor) -> Tensor:
        return function(x)

    return run


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Result]:
    def run(a: Tensor, b: Tensor) -> Tensor:
        if a.dtype in (torch.uint16, torch.uint32, torch.uint64):  # torch computes with signed ones of that width
            return function(_signed(a), _signed(b)).to(a.dtype)
        return function(a, b)

    return run


def _signed(x: Tensor) -> Tensor:
    if x.dtype == torch.uint64 and bool((x.view(torch.int64) < 0).any()):
        raise UnsupportedOperator("arithmetic with whole numbers above 2^63", "torch has none")
    return x.to(torch.int64)


def aligned(a: Tensor, b: Tensor, broadcast: int, axis: int | None) -> Tensor:
    """b with axes of length 1 behind it, so that its first axis meets axis `axis` of a (opsets before 7)."""
    if not broadcast or axis is None:
        return b
    return b.reshape(*b.shape, *(1,) * (a.ndim - b.ndim - axis % a.ndim))


def _old_binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Result]:
    def run(a: Tensor, b: Tensor, *, broadcast: int = 0, axis: int | None = None) -> Tensor:
        return function(a, aligned(a, b, broadcast, axis))

    return run


for _name, _function in UNARY.items():
    operator(_name)(_unary(_function))
for _name, _two in BINARY.items():
    operator(_name, since=7)(_binary(_two))
    operator(_name, before=7)(_old_binary(_two))


@operator("Sum")
def total(*x: Tensor) -> Tensor:
    """x₁ + x₂ + …"""
    return reduce(torch.add, x)


@operator("Mean")
def mean(*x: Tensor) -> Tensor:
    """(x₁ + … + x_n) / n."""
    return reduce(torch.add, x) / len(x)


@operator("Max")
def maximum(*x: Tensor) -> Tensor:
    """The largest of the operands."""
    return reduce(_promoted(torch.maximum), x)


@operator("Min")
def minimum(*x: Tensor) -> Tensor:
    """The smallest of the operands."""
    return reduce(_promoted(torch.minimum), x)


def _promoted(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """torch has no maximum of wide unsigned numbers: they are compared as signed ones, in which they fit."""
    wider = {torch.uint16: torch.int32, torch.uint32: torch.int64}

    def run(a: Tensor, b: Tensor) -> Tensor:
        if a.dtype == torch.uint64:
            bits = torch.iinfo(torch.int64).min  # flipping the highest bit keeps the order
            shifted = function(a.view(torch.int64) ^ bits, b.view(torch.int64) ^ bits) ^ bits
            return shifted.view(torch.uint64)
        wide = wider.get(a.dtype, a.dtype)
        return function(a.to(wide), b.to(wide)).to(a.dtype)

    return run


@operator("Clip", since=11)
def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """min(max(x, low), high)."""
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


@operator("Clip", before=11)
def clip_between(x: Tensor, *, min: float | None = None, max: float | None = None) -> Tensor:
    """The bounds as attributes."""
    return x if min is None and max is None else torch.clamp(x, min, max)


@operator("Mod")
def modulo(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """The remainder with the sign of b, or as C's fmod with the sign of a."""
    if a.dtype in (torch.uint16, torch.uint32):
        return modulo(a.to(torch.int64), b.to(torch.int64)).to(a.dtype)
    if a.dtype == torch.uint64:
        if bool((a.view(torch.int64) < 0).any()) or bool((b.view(torch.int64) < 0).any()):
            raise UnsupportedOperator("operator Mod", "of whole numbers above 2^63")
        return modulo(a.to(torch.int64), b.to(torch.int64)).to(a.dtype)
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@operator("Scale")
def scale(x: Tensor, *, scale: float = 1.0) -> Tensor:
    """scale · x (an early experimental operator)."""
    return x * scale


@operator("Affine")
def affine(x: Tensor, *, alpha: float = 1.0, beta: float = 0.0) -> Tensor:
    """alpha · x + beta (an early experimental operator)."""
    return alpha * x + beta


@operator("Identity")
def identity(x: Tensor) -> Tensor:
    """x."""
    return x


@operator("Dropout", since=12)
def dropout(
    x: Tensor,
    ratio: Tensor | None = None,
    training: Tensor | None = None,
    *,
    seed: int | None = None,
    outputs: int = 1,
) -> Result:
    """x, and a mask of ones: networks are opened in the mode they are used in."""
    if training is not None and number(training) and (ratio is None or number(ratio)):
        raise UnsupportedOperator("operator Dropout in training mode", "its output is random")
    return (x, torch.ones_like(x, dtype=torch.bool))[:outputs]


@operator("Dropout", before=12)
def dropout_by_attribute(x: Tensor, *, ratio: float = 0.5, is_test: int = 1, outputs: int = 1) -> Result:
    """The same; the mask has the type of x before opset 10, and is not read."""
    return (x, torch.ones_like(x, dtype=torch.bool))[:outputs]
