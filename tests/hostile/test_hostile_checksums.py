"""Zip archives whose weights are not those that were written: the checksum of every weight is compared."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from hostile.refusal import refusal
from hostile.samples import SAMPLES
from torch.serialization import set_crc32_options

from curvlab.formats.load import load

# Sample of the fuzzer -> the end of the name of an entry that holds weights.
ARCHIVES = {
    "torch-zip": "/data/0",
    "torch-zip-closed": "/data/0",
    "torchscript": "/data/0",
    "torchscript-trusted": "/data/0",
    "pt2": "/weight_0",
    "pt2-trusted": "/weight_0",
    "keras": "model.weights.h5",
}


def damaged(path: Path, end: str) -> str:
    """One bit in the middle of the entry's bytes is another; returns the entry's name."""
    with zipfile.ZipFile(path) as archive:
        (entry,) = [entry for entry in archive.infolist() if entry.filename.endswith(end)]
    content = bytearray(path.read_bytes())
    name_bytes, extra_bytes = (int.from_bytes(content[entry.header_offset + at :][:2], "little") for at in (26, 28))
    begin = entry.header_offset + 30 + name_bytes + extra_bytes
    content[begin + entry.file_size // 2] ^= 1
    path.write_bytes(content)
    return entry.filename


@pytest.mark.parametrize(("sample", "end"), ARCHIVES.items(), ids=ARCHIVES)
def test_a_weight_with_another_checksum_is_refused(sample: str, end: str, tmp_path: Path) -> None:
    path = SAMPLES[sample].write(tmp_path)
    name = damaged(path, end)
    sentence = refusal(path, trust=sample.endswith("trusted"))
    assert f"its entry '{name}' has another checksum than was written for it" in sentence
    assert "download or copy it again" in sentence


def test_control_a_file_without_checksums_says_so(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    set_crc32_options(False)
    try:
        torch.save({"fc.weight": torch.ones(3, 3)}, path)
    finally:
        set_crc32_options(True)
    checkpoint = load(path)
    assert torch.equal(checkpoint.tensors["fc.weight"], torch.ones(3, 3))
    assert any("no checksums" in note for note in checkpoint.notes)


def test_control_a_file_with_checksums_says_nothing(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.ones(3, 3)}, tmp_path / "m.pt")
    assert not any("checksum" in note for note in load(tmp_path / "m.pt").notes)
