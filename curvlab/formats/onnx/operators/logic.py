"""Comparisons and truth values; bit patterns of whole numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from curvlab.formats.onnx.operators.elementwise import aligned
from curvlab.formats.onnx.operators.table import Result, operator

_WIDE = {torch.uint16: torch.int32, torch.uint32: torch.int64}
_BITS = torch.iinfo(torch.int64).min
COMPARISONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
}
CONNECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}
BITWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}


def _comparable(x: Tensor) -> Tensor:
    """torch compares no wide unsigned numbers; flipping the highest bit of 64 keeps their order as signed ones."""
    return x.view(torch.int64) ^ _BITS if x.dtype == torch.uint64 else x.to(_WIDE.get(x.dtype, x.dtype))


def _entry(function: Callable[[Tensor, Tensor], Tensor], convert: Callable[[Tensor], Tensor]) -> Callable[..., Result]:
    def run(a: Tensor, b: Tensor, *, broadcast: int = 0, axis: int | None = None) -> Tensor:
        return function(convert(a), convert(aligned(a, b, broadcast, axis)))

    return run


for _name, _function in COMPARISONS.items():
    operator(_name)(_entry(_function, _comparable))
for _name, _function in (CONNECTIVES | BITWISE).items():
    operator(_name)(_entry(_function, lambda x: x))


@operator("Not")
def negation(x: Tensor) -> Tensor:
    """not x."""
    return torch.logical_not(x)


@operator("BitwiseNot")
def bitwise_not(x: Tensor) -> Tensor:
    """Every bit flipped."""
    signed = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}.get(x.dtype, x.dtype)
    return torch.bitwise_not(x.view(signed)).view(x.dtype)


@operator("BitShift")
def bit_shift(x: Tensor, by: Tensor, *, direction: str) -> Tensor:
    """x · 2^by or ⌊x / 2^by⌋ of whole numbers, as the processor shifts their bits."""
    signed = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}.get(x.dtype, x.dtype)
    a, n = x.view(signed), by.view(signed)
    if direction == "LEFT":
        return torch.bitwise_left_shift(a, n).view(x.dtype)
    shifted = torch.bitwise_right_shift(a, n)
    if signed is not x.dtype:  # an unsigned number shifts zeros in
        width = torch.iinfo(signed).bits
        keep = torch.where(n > 0, torch.bitwise_left_shift(torch.ones_like(n), width - n) - 1, -torch.ones_like(n))
        shifted = shifted & keep
    return shifted.view(x.dtype)


@operator("IsNaN")
def is_nan(x: Tensor) -> Tensor:
    """x ≠ x."""
    return torch.isnan(x)


@operator("IsInf")
def is_infinite(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """x = ±∞."""
    x = x.float() if x.element_size() == 1 else x
    found = torch.zeros_like(x, dtype=torch.bool)
    if detect_positive:
        found = found | torch.isposinf(x)
    return found | torch.isneginf(x) if detect_negative else found


@operator("Where")
def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a where the condition holds, else b."""
    return torch.where(condition, a, b)
