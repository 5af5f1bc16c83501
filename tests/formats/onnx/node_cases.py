"""onnx's own node tests: models of one operator with inputs and the outputs its authors computed.

The functions of newer operators come expanded into older ones as well, which makes small graphs.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.backend.test.case.node import collect_testcases
from torch import Tensor

from curvlab.formats.onnx.operators.table import UnsupportedOperator
from curvlab.formats.onnx.reading.graph import Graph, opsets, read_graph
from curvlab.formats.onnx.reading.tensors import stored_tensor

HERE = Path()
# A 16-bit float is rounded to 2^-8 or 2^-11 of itself, and sums are rounded several times; of a float32 sum of numbers
# around 1, onnx's own 1e-7 is less than one rounding.
TOLERANCES = {"float16": (4e-3, 2e-3), "bfloat16": (2e-2, 1e-2), "float32": (1e-3, 1e-6)}


@cache
def node_cases() -> dict[str, Any]:
    """Name -> case, made once per process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx computes some of its own expectations with overflows
        return {case.name: case for case in collect_testcases(None)}


def operators_of(case: Any) -> list[str]:
    """The operators of its nodes, with their domain if it is not ONNX's own."""
    return [f"{node.domain}:{node.op_type}" if node.domain else node.op_type for node in case.model.graph.node]


def graph_of(model: Any) -> Graph:
    return read_graph(model.graph, opsets(model, onnx.defs.onnx_opset_version()), HERE)


def tensor(value: Any) -> Tensor:
    """A case's input, which is an array or a stored tensor.

    Raises:
        UnsupportedOperator: torch has no such tensors.
    """
    if value is None or isinstance(value, list | str | dict):
        raise UnsupportedOperator("no tensor")
    proto = value if isinstance(value, onnx.TensorProto) else onnx.numpy_helper.from_array(np.asarray(value), "input")
    stored = stored_tensor(proto, HERE)
    if stored is None:
        raise UnsupportedOperator("torch has no tensors of this type")
    return stored.read()


def assert_matches(found: Tensor, wanted: Any) -> None:
    """Same type and shape, entries within the tolerance of their type."""
    expected = tensor(wanted)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    name = str(found.dtype).removeprefix("torch.")
    if not found.is_floating_point() and not found.is_complex():
        assert torch.equal(found, expected)
        return
    rtol, atol = TOLERANCES.get(name, (1e-3, 1e-7))
    if found.element_size() < 4:
        found, expected = found.float(), expected.float()
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol, equal_nan=True)
