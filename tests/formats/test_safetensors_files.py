"""Safetensors: every element type against the library's own reader, laziness, bounded memory, many small tensors."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn

from curvlab.errors import CheckpointError, MemoryBudgetError
from curvlab.formats.dtypes import SAFETENSORS
from curvlab.formats.load import load


def _of_type(dtype: torch.dtype) -> Tensor:
    values = torch.randint(0, 2, (5, 3)) if dtype == torch.bool else torch.randn(5, 3) * 3
    # Not every 8-bit type converts from float32 directly; their bytes are what counts.
    return torch.randint(0, 120, (5, 3), dtype=torch.uint8).view(dtype) if dtype.itemsize == 1 else values.to(dtype)


@pytest.mark.parametrize("code", sorted(set(SAFETENSORS) - {"BOOL"}))
def test_every_element_type_reads_as_the_library_reads_it(code: str, tmp_path: Path) -> None:
    tensor = _of_type(getattr(torch, SAFETENSORS[code]))
    save_file({"fc.weight": tensor, "other.weight": torch.randn(2, 3)}, tmp_path / "m.safetensors")
    checkpoint = load(tmp_path / "m.safetensors")
    read = checkpoint.tensors["fc.weight"]
    expected = load_file(tmp_path / "m.safetensors")["fc.weight"]
    assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(read.view(torch.uint8), expected.view(torch.uint8))
    assert checkpoint.dtypes["fc.weight"] == SAFETENSORS[code]
    assert checkpoint.format == "safetensors"


def test_truth_values_are_clean_even_if_their_bytes_are_not(tmp_path: Path) -> None:
    header = json.dumps({"m": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}, **_weight(3, 3)}).encode()
    (tmp_path / "m").write_bytes(struct.pack("<Q", len(header)) + header + b"\x00\x01\xff" + b"\0" * 36)
    assert load(tmp_path / "m").tensors["m"].view(torch.uint8).tolist() == [0, 1, 1]


def _weight(rows: int, begin: int) -> dict[str, object]:
    return {"w.weight": {"dtype": "F32", "shape": [rows, 3], "data_offsets": [begin, begin + 12 * rows]}}


def test_special_shapes(tmp_path: Path) -> None:
    tensors = {"empty.weight": torch.zeros(0, 5), "scalar": torch.tensor(2.5), "fc.weight": torch.randn(4, 3)}
    save_file(tensors, tmp_path / "m")
    checkpoint = load(tmp_path / "m")
    assert {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()} == checkpoint.shapes
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in tensors.items())


def test_all_nan_and_constant_weights_load(tmp_path: Path) -> None:
    save_file({"a.weight": torch.full((3, 3), float("nan")), "b.weight": torch.ones(3, 3)}, tmp_path / "m")
    assert [layer.kind for layer in load(tmp_path / "m").layers] == ["Linear", "Linear"]


def test_tensors_come_in_natural_order(tmp_path: Path) -> None:
    save_file({f"layer.{i}.weight": torch.randn(2, 2) for i in (10, 9, 1)}, tmp_path / "m")
    assert list(load(tmp_path / "m").tensors) == ["layer.1.weight", "layer.9.weight", "layer.10.weight"]


def test_the_extension_does_not_matter(tmp_path: Path) -> None:
    save_file({"fc.weight": torch.randn(2, 2)}, tmp_path / "m.pt")
    assert load(tmp_path / "m.pt").format == "safetensors"


def test_metadata_and_the_hash_of_the_file(tmp_path: Path) -> None:
    import hashlib

    save_file({"fc.weight": torch.randn(2, 2)}, tmp_path / "m", {"author": "somebody"})
    checkpoint = load(tmp_path / "m")
    assert checkpoint.metadata == {"author": "somebody"}
    assert checkpoint.sha256 == hashlib.sha256((tmp_path / "m").read_bytes()).hexdigest()


def test_tied_weights_left_out_by_the_writer_are_aliases(tmp_path: Path) -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(7, 3), "head": nn.Linear(3, 7, bias=False)})
    model["head"].weight = model["embed"].weight
    save_model(model, str(tmp_path / "m"))
    checkpoint = load(tmp_path / "m")
    assert dict(checkpoint.aliases) == {"head.weight": "embed.weight"}
    assert list(checkpoint.tensors) == ["embed.weight"]


def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path) -> None:
    save_file({"module._orig_mod.fc.weight": torch.ones(2, 2), "module.head.weight": torch.ones(1, 2)}, tmp_path / "m")
    checkpoint = load(tmp_path / "m")
    assert set(checkpoint.tensors) == {"fc.weight", "head.weight"}
    assert "taken off the names: '_orig_mod.', 'module.'" in checkpoint.notes


def test_a_tensor_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "m"
    save_file({"a.weight": torch.ones(2, 2), "b.weight": torch.ones(2, 2)}, path)
    tensors = load(path).tensors
    content = bytearray(path.read_bytes())
    content[-4:] = struct.pack("<f", 5.0)
    path.write_bytes(content)
    assert tensors["b.weight"][1, 1] == 5
    kept = tensors["b.weight"]
    kept.zero_()
    assert tensors["b.weight"][1, 1] == 5  # what is read is the reader's own copy


def test_a_file_that_changes_size_under_the_reader_is_an_error(tmp_path: Path) -> None:
    save_file({"a.weight": torch.ones(64, 64)}, tmp_path / "m")
    tensors = load(tmp_path / "m").tensors
    (tmp_path / "m").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="changed while it was being read"):
        tensors["a.weight"]


def test_max_memory_refuses_a_tensor_before_it_is_read(tmp_path: Path) -> None:
    save_file({"a.weight": torch.ones(64, 64)}, tmp_path / "m")
    assert load(tmp_path / "m", max_memory=64 * 64 * 4).layers
    with pytest.raises(MemoryBudgetError, match="takes 16384 bytes: --max-memory allows 16383"):
        load(tmp_path / "m", max_memory=64 * 64 * 4 - 1)


def _sparse_model(path: Path, megabytes: int, count: int) -> None:
    """A model of zeros that takes no room on the disk: only its header is written."""
    size = megabytes * 2**20
    table = {
        f"layer.{i}.weight": {"dtype": "F32", "shape": [size // 4096, 1024], "data_offsets": [i * size, (i + 1) * size]}
        for i in range(count)
    }
    header = json.dumps(table).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + count * size)


_READ_ALL = """
import resource, sys
from curvlab.formats.load import load
import curvlab.formats.inference.infer, curvlab.formats.torch.file, curvlab.formats.curvlab_file.file
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
checkpoint = load(sys.argv[1])
for name in checkpoint.tensors:
    checkpoint.tensors[name].sum()
checkpoint.sha256
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is counted in kilobytes on Linux only")
def test_a_large_file_is_read_in_the_memory_of_one_tensor(tmp_path: Path) -> None:
    # 24 tensors of 16 MB: reading them all may take two at a time, far from the 384 MB of the file.
    _sparse_model(tmp_path / "large.safetensors", 16, 24)
    command = [sys.executable, "-c", _READ_ALL, str(tmp_path / "large.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 64


def test_a_hundred_thousand_small_tensors(tmp_path: Path) -> None:
    size, count = 16, 100_000
    table = {
        f"layer.{i}.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [i * size, (i + 1) * size]}
        for i in range(count)
    }
    header = json.dumps(table).encode()
    (tmp_path / "many").write_bytes(struct.pack("<Q", len(header)) + header + bytes(count * size))
    start = time.process_time()
    checkpoint = load(tmp_path / "many")
    assert len(checkpoint.layers) == count
    assert checkpoint.tensors["layer.99999.weight"].shape == (2, 2)
    assert time.process_time() - start < 20
