"""ONNX files from an enemy: one sentence each, soon, in little memory, nothing opened beyond the model's folder."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import onnx
import pytest
from hostile.onnx_bytes import (
    SUM,
    cheaply,
    graph,
    info,
    nested,
    node,
    opened,
    raw,
    refusal,
    sizes,
    varint,
)
from onnx import TensorProto, helper

from curvlab.errors import CheckpointError
from curvlab.formats.onnx.file import read_onnx


def _opset_999() -> Any:
    return graph([SUM], opset=999)


def _dtype_99() -> Any:
    return graph([SUM], [raw("w", [1], b"\0\0\0\0", 99)])


def _deep_doubling() -> Any:
    nodes = [node("Concat", [f"v{i}", f"v{i}"], [f"v{i + 1}"], axis=0) for i in range(60)]
    nodes[0].input[:] = ["x", "x"]
    return graph([*nodes, node("Identity", ["v60"], ["y"])])


# What is wrong -> the model, and what the sentence must say.
MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "a circle": (lambda: graph([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), SUM]), "is a circle"),
    "a value nobody makes": (lambda: graph([node("Add", ["x", "ghost"], ["y"])]), "'ghost': which nothing"),
    "an output nobody makes": (lambda: graph([node("Relu", ["x"], ["z"])]), "output 'y' is made by no node"),
    "a value made twice": (lambda: graph([SUM, node("Relu", ["x"], ["y"])]), "'y' is made twice"),
    "a weight made twice": (lambda: graph([SUM], [raw("weight", [1], bytes(4))]), "'weight' is made twice"),
    "an undeclared domain": (lambda: graph([node("Boom", ["x"], ["y"], domain="evil.org")]), "'evil.org'"),
    "opset 999": (_opset_999, "operator set 999"),
    "opset 0": (lambda: graph([SUM], opset=0), "operator set 0"),
    "opset -1": (lambda: graph([SUM], opset=-1), "operator set -1"),
    "element type 99": (_dtype_99, "type 99"),
    "fewer bytes than the shape": (lambda: graph([SUM], [raw("w", [10], bytes(4))]), "needs 40 bytes: it has 4"),
    "more bytes than the shape": (lambda: graph([SUM], [raw("w", [1], bytes(8))]), "needs 4 bytes: it has 8"),
    "a shape of 2^80": (lambda: graph([SUM], [raw("w", [2**40, 2**40], bytes(4))]), "it has 4"),
    "a shape that overflows to 4 bytes": (lambda: graph([SUM], [raw("w", [2**62, 2, 2], bytes(0))]), "it has 0"),
    "a negative size": (lambda: graph([SUM], [raw("w", [-1, -4], bytes(16))]), "which no tensor can have"),
    "no elements, but 2^40 of them": (lambda: graph([SUM], [raw("w", [0, 2**40])]), "which no tensor can have"),
    "a thousand axes": (lambda: graph([SUM], [raw("w", [1] * 1000, bytes(4))]), "which no tensor can have"),
    "a constant of terabytes": (
        lambda: graph(
            [node("ConstantOfShape", ["sizes"], ["c"]), node("Add", ["x", "c"], ["y"])], [sizes(2**20, 2**22)]
        ),
        "not safe to run",
    ),
    "a segment": (lambda: graph([SUM], [_segment()]), "stored in segments"),
}


def _segment() -> Any:
    tensor = raw("w", [1], bytes(4))
    tensor.segment.begin, tensor.segment.end = 0, 1
    return tensor


@pytest.mark.parametrize(("make", "said"), MODELS.values(), ids=MODELS)
def test_a_malformed_graph_is_refused_in_one_sentence(tmp_path: Path, make: Callable[[], Any], said: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make().SerializeToString())
    assert said in refusal(path)


# Graphs that ask for more than anybody has once they are run: they are not, and the weights are there all the same.
MONSTERS: dict[str, Callable[[], Any]] = {
    "a copy": lambda: graph([node("Tile", ["x", "sizes"], ["y"])], [sizes(2**42)]),
    "a broadcast": lambda: graph(
        [node("Expand", ["x", "sizes"], ["e"]), node("Relu", ["e"], ["y"])], [sizes(2**41, 2)]
    ),
    "a padding": lambda: graph([node("Pad", ["x", "sizes"], ["y"])], [sizes(0, 2**42)]),
    "sixty doublings": _deep_doubling,
    "an outer product": lambda: graph(
        [node("Unsqueeze", ["x", "sizes"], ["c"]), node("Mul", ["x", "c"], ["y"])],
        [sizes(1)],
        inputs=[info("x", (2**18,))],
    ),
    "a convolution": lambda: graph(
        [node("Conv", ["x", "k"], ["y"], pads=[2**40, 2**40])],
        [raw("k", [1, 1, 1], bytes(4))],
        inputs=[info("x", (1, 1, 4))],
    ),
    "a resizing": lambda: graph(
        [node("Resize", ["x", "", "factors"], ["y"])],
        [helper.make_tensor("factors", TensorProto.FLOAT, [1], [1e12])],
    ),
    "a window": lambda: graph([node("HannWindow", ["sizes"], ["w"]), node("Add", ["x", "w"], ["y"])], [sizes(2**40)]),
    "a loop of products": lambda: graph(
        [node("MatMul", [f"v{i}" if i else "x"] * 2, [f"v{i + 1}"]) for i in range(200)]
        + [node("Identity", ["v200"], ["y"])],
        inputs=[info("x", (1500, 1500))],
    ),
}


@pytest.mark.parametrize("make", MONSTERS.values(), ids=MONSTERS)
def test_a_graph_that_asks_for_too_much_is_not_run(tmp_path: Path, make: Callable[[], Any]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make().SerializeToString())

    def tried() -> str:
        try:
            found = opened(path)
        except CheckpointError as refusal:  # what the constants alone ask for
            return str(refusal)
        assert found.module is None
        return " ".join(found.notes)

    sentence = cheaply(tried)
    assert "bytes at once" in sentence or "too long" in sentence
    assert sentence.isprintable()


BYTES: dict[str, tuple[Callable[[], bytes], str]] = {
    "two bytes": (lambda: b"\x08\x08", "it holds no graph"),
    "an empty model": (lambda: onnx.ModelProto().SerializeToString() or b"\x08\x00", "it holds no graph"),
    "a graph without nodes": (lambda: graph([]).SerializeToString(), "it holds no graph"),
    "text": (lambda: b"ir_version: 8\ngraph { node { op_type: 'Relu' } }\n" * 9, "no ONNX model"),
    "cut off": (lambda: graph([SUM]).SerializeToString()[:-20], "cut off or damaged"),
    "zeros": (lambda: bytes(4096), "no ONNX model"),
    "random bytes": (lambda: bytes((i * 7919 + i // 256) % 251 for i in range(4096)), "no ONNX model"),
    "nesting of 50 branches": (lambda: nested(50), "ONNX model"),
    "nesting of 10,000 branches": (lambda: nested(10_000), "ONNX model"),
    "three million empty nodes": (
        lambda: b"\x3a" + varint(2 * 3_000_000) + b"\x0a\x00" * 3_000_000,
        "more than 2000000",
    ),
    "a length beyond the end": (lambda: b"\x3a\xff\xff\xff\xff\x7f" + bytes(64), "no ONNX model"),
    "a graph that is a number": (lambda: struct.pack("<BQ", 0x39, 2**63), "no ONNX model"),
}


@pytest.mark.parametrize(("make", "said"), BYTES.values(), ids=BYTES)
def test_what_is_no_onnx_model_is_refused_in_one_sentence(tmp_path: Path, make: Callable[[], bytes], said: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make())
    assert said in refusal(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.touch()
    assert "is empty" in refusal(path)


# Unusual, and yet honest: these must be opened, with a network or without, and quickly.
HONEST: dict[str, tuple[Callable[[], Any], bool]] = {
    "terminal codes in names": (lambda: graph([node("Add", ["x", "weight"], ["y"], name="\x1b[2J\n")]), True),
    "an unknown operator": (lambda: graph([node("Frobnicate", ["x", "weight"], ["y"])]), False),
    "an unused node": (
        lambda: graph([SUM, node("Einsum", ["x", "x"], ["z"], equation="i,j->ij")]),
        True,
    ),
    "a long chain": (
        lambda: graph(
            [node("Relu", [f"v{i}" if i else "x"], [f"v{i + 1}"]) for i in range(3000)]
            + [node("Add", ["v3000", "weight"], ["y"])]
        ),
        True,
    ),
    "an input of 2^40 numbers": (lambda: graph([SUM], inputs=[info("x", (2**20, 2**20))]), False),
    "a free size": (lambda: graph([SUM], inputs=[info("x", ("n", 2, 2))]), True),
    "no types at all": (lambda: graph([SUM], inputs=[helper.make_empty_tensor_value_info("x")]), False),
}


@pytest.mark.parametrize(("make", "runs"), HONEST.values(), ids=HONEST)
def test_unusual_models_are_opened(tmp_path: Path, make: Callable[[], Any], runs: bool) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make().SerializeToString())
    found = cheaply(lambda: opened(path))
    assert (found.module is not None) == runs, found.notes
    assert all(note.isprintable() for note in found.notes)


# Attributes of another kind than the operator has, and inputs that are missing.
CONFUSED: dict[str, Callable[[], Any]] = {
    "a group in words": lambda: node("Conv", ["x", "k"], ["y"], group="many"),
    "a list for a group": lambda: node("Conv", ["x", "k"], ["y"], group=[1, 2]),
    "no group at all": lambda: node("Conv", ["x", "k"], ["y"], group=0),
    "strides of zero": lambda: node("Conv", ["x", "k"], ["y"], strides=[0]),
    "strides for three axes": lambda: node("Conv", ["x", "k"], ["y"], strides=[1, 1, 1]),
    "a negative dilation": lambda: node("Conv", ["x", "k"], ["y"], dilations=[-1]),
    "a convolution of nothing": lambda: node("Conv", ["x"], ["y"]),
    "a gather without an index": lambda: node("Gather", ["weight"], ["y"]),
    "a scale in words": lambda: node("Gemm", ["x", "weight"], ["y"], alpha="half"),
    "a permutation of nobody": lambda: node("Transpose", ["x"], ["y"], perm=[7, 7]),
    "a direction of nowhere": lambda: node("LSTM", ["x", "k", "k"], ["y"], direction="sideways"),
    "an equation that is none": lambda: node("Einsum", ["x", "x"], ["y"], equation="->->"),
    "a tensor for an axis": lambda: node("Softmax", ["x"], ["y"], axis=helper.make_tensor("t", 1, [1], [1.0])),
    "splits beyond the end": lambda: node("Split", ["x"], ["y", "z"], num_outputs=-5),
    "an element type of 77": lambda: node("Cast", ["x"], ["y"], to=77),
}


@pytest.mark.parametrize("make", CONFUSED.values(), ids=CONFUSED)
def test_a_confused_node_is_a_reason_not_a_crash(tmp_path: Path, make: Callable[[], Any]) -> None:
    path = tmp_path / "model.onnx"
    model = graph([make()], [raw("k", [2, 2, 3], bytes(48))], inputs=[info("x", (1, 2, 6))], opset=18)
    path.write_bytes(model.SerializeToString())
    found = cheaply(lambda: opened(path))
    assert found.module is None
    assert found.notes[0].startswith("opened for its weights only: ")
    assert found.notes[0].isprintable()


def test_many_weights_of_one_name_take_no_longer_than_their_number(tmp_path: Path) -> None:
    tensors = [raw(f"a{'/' * i}b" if i < 200 else f"val_{i}", [1], bytes(4)) for i in range(20_000)]
    path = tmp_path / "model.onnx"
    path.write_bytes(graph([SUM], tensors).SerializeToString())
    stored = cheaply(lambda: read_onnx(path))
    assert len(stored.specs) == 20_001


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_refused_or_read_but_never_crash(tmp_path: Path, seed: int) -> None:
    """Bytes changed, cut out or put in, anywhere in an honest file."""
    random = Random(seed)
    honest = graph(
        [
            node("Conv", ["x", "k"], ["c"], pads=[1, 1]),
            node("Reshape", ["c", "sizes"], ["r"]),
            node("MatMul", ["r", "weight"], ["y"]),
        ],
        [raw("k", [2, 2, 3], struct.pack("<12f", *range(12))), sizes(-1, 2)],
        inputs=[info("x", ("n", 2, 6))],
    ).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(honest)
    assert opened(path).module is not None
    for _ in range(60):
        content, place = bytearray(honest), random.randrange(len(honest))
        change = random.randrange(4)
        if change == 0:
            content[place] = random.randrange(256)
        elif change == 1:
            content = content[:place]
        elif change == 2:
            content[place:place] = random.randbytes(random.choice([1, 4, 9]))
        else:
            del content[place : place + random.choice([1, 2, 8])]
        path.write_bytes(content)
        sentences: tuple[str, ...] = ()
        try:
            sentences = cheaply(lambda: opened(path)).notes
        except CheckpointError as refusal:
            sentences = (str(refusal),)
        assert sentences
        assert all(sentence.isprintable() for sentence in sentences)


def test_a_limit_is_kept(tmp_path: Path) -> None:
    from curvlab.errors import MemoryBudgetError

    path = tmp_path / "model.onnx"
    path.write_bytes(graph([SUM]).SerializeToString())
    with pytest.raises(MemoryBudgetError, match="--max-memory allows 10"):
        read_onnx(path, 10)
