"""HDF5 files from an enemy: links out of the file, cycles, bombs and damage, each refused in one sentence."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from h5py import h5d, h5p, h5s, h5t
from hostile.refusal import refusal

from curvlab.formats.load import load

KERNEL = np.arange(12, dtype="f4").reshape(4, 3)


def honest(file: h5py.File) -> None:
    file["dense/kernel"] = KERNEL
    file["dense/bias"] = np.zeros(3, "f4")


def external_link(file: h5py.File) -> None:
    file["stolen"] = h5py.ExternalLink("secret.h5", "/dense")


def external_link_to_a_pipe(file: h5py.File) -> None:
    file["stolen"] = h5py.ExternalLink("pipe", "/dense")


def soft_link(file: h5py.File) -> None:
    file["again"] = h5py.SoftLink("/dense/kernel")


def soft_loop(file: h5py.File) -> None:
    file["a"] = h5py.SoftLink("/b")
    file["b"] = h5py.SoftLink("/a")


def dangling(file: h5py.File) -> None:
    file["nowhere"] = h5py.SoftLink("/not/there")


def group_cycle(file: h5py.File) -> None:
    file["dense/inside"] = file["/"]


def group_in_itself(file: h5py.File) -> None:
    file["dense/inside"] = file["dense"]


def group_doubled(file: h5py.File) -> None:
    """Sixty groups, each twice in the one before: 2^60 paths."""
    group = file.create_group("g")
    for _ in range(60):
        inner = group.create_group("a")
        group["b"] = inner
        group = inner


def deep(file: h5py.File) -> None:
    group = file.create_group("g")
    for _ in range(200):
        group = group.create_group("g")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "dense/kernel", (4, 3))
    file.create_virtual_dataset("stolen/kernel", layout)


def virtual_without_end(file: h5py.File) -> None:
    """Its extent is that of the other file, which h5py would open to learn its shape."""
    layout = h5py.VirtualLayout((4, 3), "f4", maxshape=(None, 3))
    source = h5py.VirtualSource("pipe", "dense/kernel", (4, 3), maxshape=(None, 3))
    layout[: h5s.UNLIMITED, :] = source[: h5s.UNLIMITED, :]
    file.create_virtual_dataset("stolen/kernel", layout)


def external_storage(file: h5py.File) -> None:
    file.create_dataset("stolen/kernel", (4, 3), "f4", external=[("secret.h5", 0, 48)])


def terabytes(file: h5py.File) -> None:
    file.create_dataset("dense/big", (2**20, 2**20), "f4", chunks=(1024, 1024))


def terabytes_filled(file: h5py.File) -> None:
    file.create_dataset("dense/big", (2**20, 2**20), "f4", chunks=(1024, 1024), compression="gzip", fillvalue=7)


def terabytes_in_one_piece(file: h5py.File) -> None:
    file.create_dataset("dense/big", (2**20, 2**20), "f4")  # nothing is written


def overflowing(file: h5py.File) -> None:
    file.create_dataset("dense/big", (2**31, 2**31), "f4", chunks=(1024, 1024))


def compressed(file: h5py.File) -> None:
    file.create_dataset("dense/big", data=np.zeros((4096, 4096), "f4"), compression="gzip", compression_opts=9)


def foreign_filter(file: h5py.File) -> None:
    """A filter is a library that HDF5 loads by its number."""
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk((4, 3))
    plist.set_filter(32768 + 7, h5py.h5z.FLAG_OPTIONAL, (1,))
    h5d.create(file.id, b"filtered", h5t.IEEE_F32LE, h5s.create_simple((4, 3)), dcpl=plist)


def only_text(file: h5py.File) -> None:
    del file["dense"]
    file["dense/kernel"] = "weights"
    file["names"] = np.array([b"a", b"b"])


def only_optimizer(file: h5py.File) -> None:
    del file["dense"]
    file["optimizer_weights/m:0"] = KERNEL


def nothing(file: h5py.File) -> None:
    del file["dense"]


def screen(file: h5py.File) -> None:
    file["\x1b[2J\n"] = h5py.SoftLink("/dense")


def long_name(file: h5py.File) -> None:
    file["x" * 10_000] = KERNEL


ENEMY: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "a link into another file": (external_link, "'stolen' is a link into another file"),
    "a link into a pipe": (external_link_to_a_pipe, "'stolen' is a link into another file"),
    "a soft link": (soft_link, "'again' is a soft link"),
    "a loop of soft links": (soft_loop, "is a soft link"),
    "a dangling link": (dangling, "is a soft link"),
    "a cycle of groups": (group_cycle, "stands in it twice, or inside itself"),
    "a group in itself": (group_in_itself, "stands in it twice, or inside itself"),
    "2^60 paths": (group_doubled, "stands in it twice"),
    "two hundred deep": (deep, "nested deeper than 64"),
    "virtual": (virtual, "is virtual: its numbers are in other files"),
    "virtual without an end": (virtual_without_end, "is virtual"),
    "external storage": (external_storage, "numbers of its dataset 'stolen/kernel' are in other files"),
    "4 TiB": (terabytes, "bytes to 4398046511104"),
    "4 TiB of sevens": (terabytes_filled, "bytes to 4398046511104"),
    "4 TiB in one piece": (terabytes_in_one_piece, "would grow"),
    "2^64 bytes": (overflowing, "bytes to 18446744073709551616"),
    "a bomb": (compressed, "would grow from"),
    "a foreign filter": (foreign_filter, "needs the foreign filter 32775"),
    "only text": (only_text, "holds no tensors"),
    "only an optimizer": (only_optimizer, "holds no tensors"),
    "nothing": (nothing, "holds no tensors"),
    "a name that clears the screen": (screen, "'\\x1b[2J\\n' is a soft link"),
    "a long name": (long_name, "is longer than 4096 letters"),
}


@pytest.mark.parametrize("name", ENEMY)
@pytest.mark.parametrize("suffix", ["h5", "pt"])
def test_enemy_files_are_refused(name: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the file lie what it wants to steal, and a pipe that would block whoever opens it."""
    make, words = ENEMY[name]
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        honest(secret)
    path = tmp_path / f"model.{suffix}"
    with h5py.File(path, "w") as file:
        honest(file)
        make(file)
    assert words in refusal(path)


def test_the_honest_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with h5py.File(path, "w") as file:
        honest(file)
    checkpoint = load(path)
    assert torch.equal(checkpoint.tensors["dense.weight"], torch.tensor(KERNEL).mT)
    assert checkpoint.format == "hdf5"


def test_what_h5py_would_follow_is_there_to_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the cases above: plain h5py does read the other file."""
    monkeypatch.chdir(tmp_path)
    with h5py.File("secret.h5", "w") as secret:
        honest(secret)
    for make in (external_link, virtual):
        with h5py.File("model.h5", "w") as file:
            make(file)
        with h5py.File("model.h5") as file:
            assert np.array_equal(file["stolen/kernel"][()], KERNEL)


def test_more_objects_than_any_model_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curvlab.formats.hdf5.outline.MAX_OBJECTS", 50)
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        for i in range(60):
            file.create_group(f"g{i}")
    assert "more than 50 groups and datasets" in refusal(path)


def test_a_long_text_named_a_thousand_times_is_not_read(tmp_path: Path) -> None:
    """Strings are kept once and may be pointed to often: a megabyte twelve thousand times is twelve gigabytes."""
    path = tmp_path / "model.h5"
    with h5py.File(path, "w", libver="latest") as file:
        honest(file)
        names = np.array(["x" * 2**20] + ["y"] * 12_000, dtype=object)
        file.attrs.create("layer_names", names, dtype=h5py.string_dtype())
    start = time.monotonic()
    checkpoint = load(path)
    assert time.monotonic() - start < 5
    assert any("not read" in note and "layer_names" in note for note in checkpoint.notes)


def test_a_description_of_20_megabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    with h5py.File(path, "w", libver="latest") as file:
        honest(file)
        file.attrs["model_config"] = " " * 20_000_000
    checkpoint = load(path)
    assert checkpoint.module is None
    assert any("model_config" in note for note in checkpoint.notes)
