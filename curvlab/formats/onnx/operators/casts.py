"""Changes of the element type."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.formats.onnx.operators.element_types import element_type
from curvlab.formats.onnx.operators.table import UnsupportedOperator, operator


@operator("Cast", since=6)
def cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """x in another type; 8-bit floats end at their largest number unless told otherwise."""
    return converted(x, element_type(to), saturate)


@operator("Cast", before=6)
def cast_by_name(x: Tensor, *, to: str) -> Tensor:
    """The type given by its name ("FLOAT")."""
    names = {"FLOAT": 1, "DOUBLE": 11, "FLOAT16": 10, "INT32": 6, "INT64": 7, "BOOL": 9, "UINT8": 2, "INT8": 3}
    if to not in names:
        raise UnsupportedOperator(f"operator Cast to {to!r}", "not supported")
    return converted(x, element_type(names[to]))


@operator("CastLike")
def cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """x in the type of another tensor."""
    return converted(x, like.dtype, saturate)


@operator("BitCast")
def bit_cast(x: Tensor, *, to: int) -> Tensor:
    """The same bits read as another type of the same width."""
    return x.view(element_type(to))


def converted(x: Tensor, dtype: torch.dtype, saturate: int = 1) -> Tensor:
    """x as `dtype`; what is too large for an 8-bit float becomes its largest number, or without saturation NaN or ∞."""
    if not dtype.is_floating_point or dtype.itemsize > 1 or dtype == x.dtype:
        return x.to(dtype)
    if dtype == torch.float8_e8m0fnu:
        raise UnsupportedOperator("operator Cast to float8_e8m0fnu", "its rounding is not torch's")
    if not saturate:
        # Half a step above 448 the sum of exponent and mantissa has no number left; torch's own cast ends at 448.
        beyond = x.abs() > 464 if dtype == torch.float8_e4m3fn else torch.zeros_like(x, dtype=torch.bool)
        return torch.where(beyond, torch.nan, x).to(dtype)
    largest = torch.finfo(dtype).max
    return torch.clamp(x.float(), -largest, largest).to(dtype)
