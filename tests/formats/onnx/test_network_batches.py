"""ONNX graphs that hold the size of the batch they were exported for: read for their weights only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from formats.onnx.models import network, opened, runtime, weight, written

# Attention over 5 tokens of 4 numbers, {b} examples written into its reshape.
MIXING = """g (float[{n},5,4] x) => (float[{n},5,3] y) {{
    h = Reshape(x, baked) t = Transpose<perm = [0,2,1]>(h) s = MatMul(h, t) p = Softmax(s)
    a = MatMul(p, h) back = Reshape(a, apart) y = MatMul(back, w) }}"""


def attention(path: Path, declared: str, baked: int) -> Path:
    constants = {
        "baked": torch.tensor([baked, -1, 4]),
        "apart": torch.tensor([-1, 5, 4]),
        "w": weight(4, 3),
    }
    return written(path / "model.onnx", MIXING.format(n=declared), constants)


@pytest.mark.parametrize(("declared", "baked"), [("1", 1), ("2", 2), ("N", 1), ("N", 2)])
def test_a_graph_that_mixes_the_examples_of_a_batch_is_not_run(tmp_path: Path, declared: str, baked: int) -> None:
    _, found = opened(attention(tmp_path, declared, baked))
    assert found.module is None
    fixed = declared if declared != "N" else "one size"
    assert found.notes[0].startswith(
        f"opened for its weights only: the graph is fixed to batches of {fixed}: it answers"
    )
    assert found.notes[0].endswith("export it with the examples on a dynamic first axis")


def test_a_graph_that_cannot_run_on_other_batches_is_not_run(tmp_path: Path) -> None:
    graph = "g (float[3,2,2] x) => (float[3,2] y) { f = Reshape(x, shape) y = MatMul(f, w) }"
    path = written(tmp_path / "model.onnx", graph, {"shape": torch.tensor([3, 4]), "w": weight(4, 2)})
    _, found = opened(path)
    assert found.module is None
    assert "fixed to batches of 3: it fails on 6 examples" in found.notes[0]


@pytest.mark.parametrize("declared", ["1", "3", "N"])
def test_a_graph_that_keeps_the_examples_apart_is_run(tmp_path: Path, declared: str) -> None:
    """The number that the file declares does not bind where the graph computes the same for others."""
    path = attention(tmp_path, declared, 0)  # 0 keeps the size of the input
    _, found = opened(path)
    assert len(found.notes) == 1
    x = weight(4, 5, 4, seed=3)
    module = network(path)
    parts = torch.cat([module(x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(module(x), parts)
    first = x[: 3 if declared == "3" else 1]
    torch.testing.assert_close(module(first), *runtime(path, x=first))


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    """A state with the examples on another axis, an answer without an axis of examples, and an input without one."""
    state = "g (float[N,4] x, float[2,N,4] s) => (float[2,N,4] y) { a = MatMul(x, m) y = Add(a, s) }"
    total = "g (float[N,4] x) => (float[] y) { a = MatMul(x, m) y = ReduceSum<keepdims = 0>(a) }"
    vector = "g (float[4] x) => (float[4] y) { a = MatMul(x, m) y = Relu(a) }"
    for graph in (state, total, vector):
        _, found = opened(written(tmp_path / "model.onnx", graph, {"m": weight(4, 4)}))
        assert found.module is not None
        assert "larger batches were not compared with their parts: not all inputs" in found.notes[1]
