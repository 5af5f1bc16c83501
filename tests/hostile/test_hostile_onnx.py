"""ONNX files from an enemy: one sentence each, soon, in little memory, nothing opened beyond the model's folder."""

from __future__ import annotations

import os
import resource
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import onnx
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


# Where the weights are said to stand -> what the sentence must say; "secret.bin" lies outside, "near.bin" beside.
PLACES: dict[str, tuple[dict[str, str], str]] = {
    "nowhere": ({}, "no plain path"),
    "outside": ({"location": "../secret.bin"}, "'../secret.bin' has '..' in it"),
    "outside and back": ({"location": "inner/../../secret.bin"}, "has '..' in it"),
    "inside, by a way back": ({"location": "inner/../near.bin"}, "has '..' in it"),
    "a hard link": ({"location": "hard.bin"}, "has a second name elsewhere (a hard link)"),
    "an absolute path": ({"location": "/etc/hostname"}, "no plain path"),
    "another drive": ({"location": "C:\\secret.bin"}, "no plain path"),
    "backslashes": ({"location": "..\\secret.bin"}, "no plain path"),
    "a zero byte": ({"location": "near.bin\0.txt"}, "no plain path"),
    "an escape sequence": ({"location": "\x1b[2Jnear.bin"}, "is not there"),
    "a link": ({"location": "link.bin"}, "is a link"),
    "a link on the way": ({"location": "linked/secret.bin"}, "is a link"),
    "a folder": ({"location": "inner"}, "no regular file"),
    "a pipe": ({"location": "pipe.bin"}, "no regular file"),
    "a missing file": ({"location": "lost.bin"}, "is not there"),
    "a file too short": ({"location": "short.bin"}, "which has 3"),
    "an offset past the end": ({"location": "near.bin", "offset": "1000"}, "which has 64"),
    "a negative offset": ({"location": "near.bin", "offset": "-16"}, "not a number of bytes"),
    "a huge offset": ({"location": "near.bin", "offset": "9" * 5000}, "not a number of bytes"),
    "an offset of 2^63": ({"location": "near.bin", "offset": str(2**63 - 1)}, "which has 64"),
    "a huge length": ({"location": "near.bin", "length": str(2**62)}, "its shape needs 16"),
    "a length too short": ({"location": "near.bin", "length": "4"}, "its shape needs 16"),
    "an offset in words": ({"location": "near.bin", "offset": "０１"}, "not a number of bytes"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A model's folder, a file beside it that nobody may read, and ways that lead there."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(struct.pack("<4f", 6, 6, 6, 6) * 4)
    here = tmp_path / "model"
    (here / "inner").mkdir(parents=True)
    (here / "near.bin").write_bytes(struct.pack("<16f", *range(16)))
    (here / "inner" / "near.bin").write_bytes(struct.pack("<16f", *range(16)))
    (here / "short.bin").write_bytes(b"abc")
    (here / "link.bin").symlink_to(secret)
    (here / "hard.bin").hardlink_to(secret)
    (here / "linked").symlink_to(tmp_path)
    os.mkfifo(here / "pipe.bin")
    return here


@pytest.mark.parametrize(("entries", "said"), PLACES.values(), ids=PLACES)
def test_external_data_are_read_from_the_models_own_folder_only(
    folder: Folder, entries: dict[str, str], said: str
) -> None:
    path = folder / "model.onnx"
    add = node("Add", ["x", "far"], ["y"])
    path.write_bytes(graph([add], [external(**entries)], inputs=[info("x", (4,))]).SerializeToString())
    sentence = refusal(path)
    assert said in sentence
    assert "'far'" in sentence
    assert "malformed" not in sentence  # the model is well formed: what is wrong lies beside it
    assert "leads out" not in sentence


def test_external_data_may_not_change_into_a_link_after_they_were_checked(folder: Folder) -> None:
    path = folder / "model.onnx"
    add = node("Add", ["x", "far"], ["y"])
    model = graph([add], [external(location="near.bin")], inputs=[info("x", (4,))])
    path.write_bytes(model.SerializeToString())
    stored = read_onnx(path)
    (folder / "near.bin").unlink()
    (folder / "near.bin").symlink_to(folder.parent / "secret.bin")
    with pytest.raises((CheckpointError, OSError)):
        stored.tensors["far"]


def test_external_data_may_not_change_into_another_file_after_they_were_checked(folder: Folder) -> None:
    path = folder / "model.onnx"
    model = graph([node("Add", ["x", "far"], ["y"])], [external(location="near.bin")], inputs=[info("x", (4,))])
    path.write_bytes(model.SerializeToString())
    stored = read_onnx(path)
    (folder / "near.bin").unlink()
    (folder / "near.bin").hardlink_to(folder.parent / "secret.bin")
    with pytest.raises(CheckpointError, match="changed while it was being read"):
        stored.tensors["far"]


@pytest.mark.parametrize(("location", "offset"), [("near.bin", 0), ("inner/near.bin", 16)])
def test_honest_external_data_are_read(folder: Folder, location: str, offset: int) -> None:
    path = folder / "model.onnx"
    add = node("Add", ["x", "far"], ["y"])
    entries = {"location": location, "offset": str(offset), "length": "16"}
    path.write_bytes(graph([add], [external(**entries)], inputs=[info("x", (4,))]).SerializeToString())
    stored = read_onnx(path)
    assert stored.tensors["far"].tolist() == [offset / 4 + i for i in range(4)]
    assert stored.files == (path, folder / location)
    assert opened(path).module is not None


@pytest.mark.parametrize("inputs", [["x", "weight"], []], ids=["too many", "none"])
def test_inputs_that_no_operator_has_are_told_of_without_words_of_python(inputs: list[str], folder: Folder) -> None:
    path = folder / "model.onnx"
    path.write_bytes(graph([node("Relu", inputs, ["y"], name="bend")]).SerializeToString())
    (note,) = opened(path).notes
    assert "node 'bend' (Relu) cannot be run: its inputs or attributes are not those of the operator" in note
    assert "positional" not in note


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
