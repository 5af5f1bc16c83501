"""Safetensors files: the header once, then each tensor's bytes by seek, when asked.

Why not `safe_open` for the tensors: it maps the whole file, and the pages of every tensor read stay resident while the
handle lives (measured: reading ten tensors of 64 MB one after the other grows resident memory by 644 MB; by seek 67
MB). A handle per tensor would be as small but parses the header each time, which 100,000 tensors cannot afford. The
library is still asked once, after our own checks, so that no file is accepted that its other users could not open.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from curvlab.errors import CheckpointError
from curvlab.formats.lazy_tensors import LazyTensors
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.formats.safetensors.header import Entry, Header, read_header
from curvlab.quoting import quoted, reason


def read_safetensors(path: Path, max_memory: int | None = None) -> RawCheckpoint:
    """Names, shapes and lazy tensors of one safetensors file; only its header is read, whatever `max_memory` says.

    Raises:
        CheckpointError: the file is not exactly what the format allows.
    """
    header = read_header(path)
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise CheckpointError(f"{quoted(path)} is refused by the safetensors library", reason(error)) from None
    return RawCheckpoint(
        format="safetensors",
        files=(path,),
        specs={name: entry.spec for name, entry in header.entries.items()},
        tensors=LazyTensors(readers(path, header)),
        aliases=tied_names(header),
        metadata=header.metadata,
    )


def readers(path: Path, header: Header) -> dict[str, partial[Tensor]]:
    """name -> a function that reads this tensor from the file."""
    return {name: partial(read_tensor, path, entry, header.file_bytes) for name, entry in header.entries.items()}


def tied_names(header: Header) -> dict[str, str]:
    """Names that the writer left out because another tensor holds the same weights (`safetensors.torch.save_model`)."""
    return {
        left_out: kept
        for left_out, kept in header.metadata.items()
        if left_out not in header.entries and kept in header.entries
    }


def read_tensor(path: Path, entry: Entry, file_bytes: int) -> Tensor:
    """One tensor in memory of its own, so that later changes of the file cannot reach it.

    Raises:
        CheckpointError: the file is no longer the one whose header was checked.
    """
    stored_bytes = entry.end - entry.begin
    raw = torch.empty(stored_bytes, dtype=torch.uint8)
    with path.open("rb", buffering=0) as file:
        changed = path.stat().st_size != file_bytes
        file.seek(entry.begin)
        view, filled = memoryview(raw.numpy().data), 0
        while not changed and filled < stored_bytes:
            count = file.readinto(view[filled:])  # one call reads at most 2 GiB
            changed, filled = not count, filled + (count or 0)
    if changed:
        raise CheckpointError(f"{quoted(path)} changed while it was being read", do="load it again")
    if entry.spec.dtype == "bool":  # a byte other than 0 and 1 is not a bool to torch
        return (raw != 0).reshape(entry.spec.shape)
    dtype: torch.dtype = getattr(torch, entry.spec.dtype)
    return raw.view(dtype).reshape(entry.spec.shape)
