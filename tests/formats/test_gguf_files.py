"""GGUF files: every type of the library gguf, unpacked as it unpacks it, and the table of weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import quants
from gguf_files import KINDS, write_gguf

import curvlab
from curvlab.errors import CheckpointError, MemoryBudgetError
from curvlab.formats.gguf import file as reading

UNPACKED = sorted({*quants._type_traits, KINDS.F32, KINDS.F16}, key=int)


@pytest.mark.parametrize("kind", UNPACKED, ids=lambda kind: kind.name)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the library's own, of scales that are drawn at random
def test_every_type_is_unpacked_as_the_library_does(kind: KINDS, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"a.weight": kind, "b.weight": KINDS.F32})
    found = curvlab.load(path)
    (stored, _) = gguf.GGUFReader(path).tensors
    plain = stored.data if kind in (KINDS.F32, KINDS.F16) else quants.dequantize(stored.data, kind)
    expected = torch.from_numpy(np.array(plain, np.float32)).reshape(6, 256)
    assert found.shapes["a.weight"] == (6, 256)
    torch.testing.assert_close(found.tensors["a.weight"].float(), expected, rtol=0, atol=0, equal_nan=True)


def test_parts_of_a_tensor_are_the_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"a.weight": KINDS.Q8_0}, (3, 5, 64))
    whole = curvlab.load(path).tensors["a.weight"]
    monkeypatch.setattr(reading, "CHUNK", 150)
    assert torch.equal(curvlab.load(path).tensors["a.weight"], whole)


def test_the_table_of_a_small_llama(tmp_path: Path) -> None:
    kinds = {
        "token_embd.weight": KINDS.Q8_0,
        "blk.0.attn_q.weight": KINDS.Q4_0,
        "blk.0.ffn_down.weight": KINDS.Q5_1,
        "output.weight": KINDS.F16,
    }
    found = curvlab.analyze(str(write_gguf(tmp_path / "m.gguf", kinds)))
    assert [(layer.name, layer.kind) for layer in found.layers] == [
        ("token_embd", "Embedding"),
        ("blk.0.attn_q", "Linear"),
        ("blk.0.ffn_down", "Linear"),
        ("output", "Linear"),
    ]
    assert all(layer.weights is not None for layer in found.layers)
    (note,) = [note for note in found.notes if note.startswith("stored as ")]
    assert "Q4_0 (1 tensor, 13% of the bytes)" in note
    assert found.model["format"] == "gguf"
    assert curvlab.load(tmp_path / "m.gguf").metadata["general.name"] == "small"


def test_experts_in_one_tensor_are_layers(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_expert_count(4)
    random = np.random.default_rng(0)
    stacks = {"ffn_gate_exps": (4, 48, 32), "ffn_down_exps": (4, 32, 64), "ffn_gate_inp": (4, 32)}
    for name, shape in stacks.items():
        writer.add_tensor(f"blk.0.{name}.weight", random.standard_normal(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = curvlab.analyze(str(path))
    names = [layer.name for layer in found.layers]
    assert "blk.0.ffn_gate_exps.3" in names
    assert "blk.0.ffn_down_exps.0" in names
    assert len(names) == 9


def test_a_folder_with_nothing_else_is_opened(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", {"a.weight": KINDS.Q8_0})
    assert curvlab.load(tmp_path).format == "gguf"


def test_memory_is_that_of_the_unpacked_weights(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"a.weight": KINDS.Q4_0})
    with pytest.raises(MemoryBudgetError, match="takes 6144 bytes"):
        curvlab.load(path, max_memory=6000)


def test_the_library_that_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"a.weight": KINDS.Q4_0})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"is a GGUF file: .* is not installed; pip install 'curvlab\[gguf\]'"):
        curvlab.load(path)
