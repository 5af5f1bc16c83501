"""GGUF files: the header once, then each tensor's bytes by seek, unpacked by the library gguf, when asked."""

from __future__ import annotations

import importlib.util
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvlab.errors import CheckpointError
from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.format import Network
from curvlab.formats.gguf.header import Header, Stored, read_header
from curvlab.formats.lazy_tensors import LazyTensors
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.quoting import quoted

PLAIN = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
}
"""Types that torch has -> its name; all others are unpacked to float32."""
CHUNK = 2**24
"""Bytes that are unpacked at once."""


def read_gguf(path: Path, max_memory: int | None = None) -> RawCheckpoint:
    """Names, shapes and lazy tensors; only the header is read, whatever `max_memory` says.

    Raises:
        CheckpointError: the library is missing, or the file is not what the format allows.
    """
    if importlib.util.find_spec("gguf") is None:
        why = "the library that unpacks its weights is not installed"
        raise CheckpointError(f"{quoted(path)} is a GGUF file", why, "pip install 'curvlab[gguf]'")
    import gguf
    from gguf import quants

    names = {int(kind): kind.name for kind in gguf.GGMLQuantizationType}
    blocks = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    unpacked = {int(kind) for kind in quants._type_traits} | {kind for kind, name in names.items() if name in PLAIN}
    header = read_header(path, {kind: sizes for kind, sizes in blocks.items() if kind in unpacked})
    return RawCheckpoint(
        format="gguf",
        files=(path,),
        specs={
            name: TensorSpec(one.shape, PLAIN.get(names[one.kind], "float32")) for name, one in header.tensors.items()
        },
        tensors=LazyTensors(
            {name: partial(_tensor, path, one, names[one.kind], header.size) for name, one in header.tensors.items()}
        ),
        metadata={key: str(value) for key, value in header.settings.items() if key.startswith("general.")},
        ordered=True,
        notes=(_kinds(header, names),),
        experts=frozenset(
            count for key, count in header.settings.items() if key.endswith(".expert_count") and isinstance(count, int)
        ),
    )


def no_network(_: Path, __: RawCheckpoint, ___: int | None) -> Network:
    """A note: the file has no graph, and its names are llama.cpp's own."""
    return Network(
        notes=("weights only: a GGUF file has no graph; the original model's folder gives the full profile",)
    )


def _kinds(header: Header, names: dict[int, str]) -> str:
    """Which types the weights are stored in, the most bytes first."""
    counts = Counter(one.kind for one in header.tensors.values())
    held: Counter[int] = Counter()
    for one in header.tensors.values():
        held[one.kind] += one.size
    total = sum(held.values())
    parts = [
        f"{names[kind]} ({counts[kind]} tensor{'s' * (counts[kind] != 1)}, {size / total:.0%} of the bytes)"
        for kind, size in held.most_common()
    ]
    unpacked = any(names[kind] not in PLAIN for kind in held)
    return f"stored as {', '.join(parts)}" + ("; analysed as unpacked to float32" if unpacked else "")


def _tensor(path: Path, one: Stored, kind: str, size: int) -> Tensor:
    """One tensor in memory of its own.

    Raises:
        CheckpointError: the file is no longer the one whose header was checked.
    """
    rows = one.size // one.row
    dtype: torch.dtype = getattr(torch, PLAIN.get(kind, "float32"))
    found = torch.empty((rows, one.shape[-1]), dtype=dtype)
    step = max(1, CHUNK // one.row)
    with path.open("rb") as file:
        file.seek(one.begin)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            stored = file.read(count * one.row)
            if len(stored) != count * one.row or path.stat().st_size != size:
                raise CheckpointError(f"{quoted(path)} changed while it was being read", do="load it again")
            found[start : start + count] = _unpacked(stored, one, kind, count)
    return found.reshape(one.shape)


def _unpacked(stored: bytes, one: Stored, kind: str, rows: int) -> Tensor:
    raw = np.frombuffer(stored, np.uint8).reshape(rows, one.row).copy()
    if kind in PLAIN:
        return torch.from_numpy(raw).view(getattr(torch, PLAIN[kind]))
    import gguf

    with np.errstate(all="ignore"):  # scales that are not finite give weights that are not, and the table says so
        values: Any = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).reshape(rows, one.shape[-1])
