"""Graphs of ONNX as an enemy may write them, and how they are opened: in little time and memory, or refused."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile.refusal import MOST_MEGABYTES, MOST_SECONDS
from onnx import TensorProto, helper

from curvlab.errors import CheckpointError
from curvlab.formats.format import Network
from curvlab.formats.onnx.file import read_onnx
from curvlab.formats.onnx.running.verified_network import onnx_network

Folder = Path


def opened(path: Path, **options: Any) -> Network:
    """What loading does with an ONNX file."""
    stored = read_onnx(path, **options)
    for name in stored.specs:
        assert tuple(stored.tensors[name].shape) == stored.specs[name].shape
    return onnx_network(path, stored, **options)


def cheaply(do: Callable[[], Any]) -> Any:
    """Does it within the time and memory that anything of a stranger's file may take."""
    start, before = time.monotonic(), _peak_megabytes()
    result = do()
    assert time.monotonic() - start < MOST_SECONDS
    assert _peak_megabytes() - before < MOST_MEGABYTES
    return result


def _peak_megabytes() -> float:
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def refusal(path: Path) -> str:
    def refused() -> str:
        with pytest.raises(CheckpointError) as caught:
            opened(path)
        return str(caught.value)

    sentence: str = cheaply(refused)
    assert sentence.isprintable()
    assert len(sentence) < 1500
    return sentence


def info(name: str, shape: Any = (2,), kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, None if shape is None else list(shape))


def graph(nodes: list[Any], tensors: list[Any] | None = None, **options: Any) -> Any:
    """A model x -> y with these nodes and initializers; `weight` is one of them."""
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [2, 2], [1.0, 2, 3, 4])
    made = helper.make_graph(
        nodes,
        "g",
        options.get("inputs", [info("x")]),
        options.get("outputs", [info("y", None)]),
        [weight, *(tensors or [])],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", options.get("opset", 17))], ir_version=8)


def node(operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(operator, inputs, outputs, **attributes)


SUM = node("Add", ["x", "weight"], ["y"])


def raw(name: str, dims: list[int], content: bytes = b"", kind: int = TensorProto.FLOAT) -> Any:
    tensor = TensorProto()
    tensor.name, tensor.data_type, tensor.raw_data = name, kind, content
    tensor.dims.extend(dims)
    return tensor


def external(**entries: str) -> Any:
    """A tensor of 4 float32 numbers that says its bytes stand elsewhere."""
    tensor = TensorProto()
    tensor.name, tensor.data_type, tensor.data_location = "far", TensorProto.FLOAT, TensorProto.EXTERNAL
    tensor.dims.extend([4])
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def sizes(*numbers: int) -> Any:
    return helper.make_tensor("sizes", TensorProto.INT64, [len(numbers)], list(numbers))


def nested(depth: int) -> bytes:
    """An If in an If in an If …, written from the inside, since no library writes it."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2]) + varint(len(content)) + content

    inner = b""
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, inner) + bytes([20 << 3, 1, 5])
        inner = field(1, field(4, b"If") + field(5, attribute))
    return field(7, inner) + field(8, b"\x10\x11")


def varint(number: int) -> bytes:
    out = b""
    while number >= 128:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])
