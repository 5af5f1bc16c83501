"""ONNX's numbers for element types, in torch's names (`TensorProto.DataType` in onnx.proto)."""

from __future__ import annotations

import torch

from curvlab.formats.onnx.operators.table import UnsupportedOperator

NAMES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    24: "float8_e8m0fnu",
}
# Types that torch has no tensors of.
FOREIGN = {8: "string", 21: "uint4", 22: "int4", 23: "float4e2m1", 25: "uint2", 26: "int2"}


def element_type(number: int) -> torch.dtype:
    """torch's type.

    Raises:
        UnsupportedOperator: torch has no such type.
    """
    if number not in NAMES:
        raise UnsupportedOperator(f"elements of the type {FOREIGN.get(number, number)}", "torch has no such tensors")
    dtype = getattr(torch, NAMES[number])
    assert isinstance(dtype, torch.dtype)
    return dtype
