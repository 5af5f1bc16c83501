"""Datasets in pieces, read once by a process of its own: libhdf5 follows the index of the pieces wherever it leads.

A damaged index can lead it in a circle, and nothing in Python can interrupt it then. Keras never writes pieces, so that
only compressed files pay for the attempt. What one process has read, another reads too.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from curvlab.errors import CheckpointError
from curvlab.formats.zip_archive import FREE_EXPANSION_BYTES, MAX_EXPANSION
from curvlab.quoting import quoted

Opener = Callable[[], "Path | BinaryIO"]
"""What h5py opens: a path, or a new stream over the file's bytes."""

SECONDS = 15.0
BYTES_PER_SECOND = 20e6
_READ = """
import sys, h5py
with h5py.File(sys.argv[1], "r", locking=False) as file:
    found = [h5py.Dataset(h5py.h5d.open(file.id, name)) for name in sys.stdin.buffer.read().split(b"\\0")]
    for index, dataset in enumerate(found):
        stored = dataset.id.get_storage_size()
        if dataset.nbytes > int(sys.argv[2]) + int(sys.argv[3]) * stored:
            print(index, stored, dataset.nbytes)
            sys.exit(3)
    for dataset in found:
        dataset[()]
"""
_BOMB = 3


def try_chunks(path: Path, source: Opener, sizes: Mapping[str, int]) -> None:
    """Nothing, if all these datasets can be read in reasonable time, and none grows far beyond its bytes in the file.

    Args:
        path: for messages.
        source: gives the file.
        sizes: name of a dataset in pieces -> bytes of its numbers.

    Raises:
        CheckpointError: a bomb; or libhdf5 failed, crashed, or did not come back.
    """
    if not sizes:
        return
    names = list(sizes)
    allowed = SECONDS + sum(sizes.values()) / BYTES_PER_SECOND
    with tempfile.TemporaryDirectory() as folder:
        # -P: a file h5py.py in the working directory is not h5py.
        command = [sys.executable, "-P", "-c", _READ, str(_on_disk(source, Path(folder)))]
        command += [str(FREE_EXPANSION_BYTES), str(MAX_EXPANSION)]
        given = b"\0".join(name.encode("utf-8") for name in names)
        try:
            done = subprocess.run(command, input=given, capture_output=True, timeout=allowed)
        except subprocess.TimeoutExpired:
            raise _damaged(path, f"reading its compressed numbers did not end in {allowed:.0f} seconds") from None
    if done.returncode == _BOMB:
        index, stored, declared = map(int, done.stdout.split())
        raise grown(path, names[index], stored, declared)
    if done.returncode:
        raise _damaged(path, "its compressed numbers cannot be read")


def grown(path: Path, name: str, stored: int, declared: int) -> CheckpointError:
    """The refusal of a dataset that claims far more bytes than the file has for it."""
    return CheckpointError(
        f"{quoted(path)} is an HDF5 file that is not safe to read",
        f"its dataset {quoted(name)} would grow from {stored} bytes to {declared}",
        "get the model from its author again",
    )


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{quoted(path)} is a damaged HDF5 file", why, "download or copy it again")


def _on_disk(source: Opener, folder: Path) -> Path:
    stream = source()
    if isinstance(stream, Path):
        return stream.absolute()
    copied = folder / "weights.h5"
    with stream, copied.open("wb") as file:
        shutil.copyfileobj(stream, file)
    return copied
