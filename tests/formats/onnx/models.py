"""ONNX models written by hand, and what onnxruntime makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx.parser import parse_graph
from torch import Tensor

from curvlab.formats.format import Network
from curvlab.formats.onnx.file import read_onnx
from curvlab.formats.onnx.running.verified_network import onnx_network
from curvlab.formats.raw_checkpoint import RawCheckpoint


def written(path: Path, graph: str, weights: Mapping[str, Tensor] | None = None, opset: int = 17, **names: str) -> Path:
    """A model file from the text of its graph ("g (float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }").

    Args:
        path: the file.
        graph: values may have no dots in this language: those in the names of weights stand as "__".
        weights: initializers.
        opset: of ONNX's own operators.
        names: output of a node -> the node's name.
    """
    parsed = parse_graph(graph)
    plain = {name.replace(".", "__").replace("::", "__"): name for name in weights or {}}
    for node in parsed.node:
        node.input[:] = [plain.get(name, name) for name in node.input]
    for name, value in (weights or {}).items():
        parsed.initializer.append(onnx.numpy_helper.from_array(value.numpy(), name))
    for node in parsed.node:
        node.name = names.get(node.output[0], node.name)
    model = onnx.helper.make_model(parsed, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(path))
    return path


def opened(path: Path) -> tuple[RawCheckpoint, Network]:
    stored = read_onnx(path)
    return stored, onnx_network(path, stored)


def network(path: Path) -> Any:
    """The trusted module of a file."""
    _, found = opened(path)
    assert found.module is not None, found.notes
    return found.module


def runtime(path: Path, **inputs: Tensor) -> list[Tensor]:
    """onnxruntime's outputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {name: np.asarray(x) for name, x in inputs.items()})
    return [torch.from_numpy(np.array(y)) for y in outputs]


def weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
