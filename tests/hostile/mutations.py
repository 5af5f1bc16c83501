"""Damage to valid files: to their bytes anywhere, and to what their bytes mean, so that it gets past the checksums."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from random import Random

from .mutations_bytes import raw
from .mutations_hdf5 import edited_hdf5
from .mutations_json import edited_json, edited_safetensors
from .mutations_onnx import edited_onnx
from .mutations_pickle import edited_pickle

Edit = Callable[[bytes, Random, str], bytes]


def mutated(name: str, content: bytes, random: Random, marker: str) -> bytes:
    """Damaged bytes: one to three changes of what they mean, or of the bytes themselves, or both.

    Args:
        name: of the file; an ONNX model is told by it.
        content: of a valid file. What was damaged is not read again by any library: those may crash on it.
        random: decides.
        marker: a folder that planted code would make.
    """
    edit = structure(name, content)
    if edit is not None and random.random() < 0.65:
        content = edit(content, random, marker)
        if random.random() < 0.8:
            return content
    for _ in range(random.choice((1, 1, 2, 4))):
        content = raw(content, random)
    return content


def structure(name: str, content: bytes) -> Edit | None:
    """The edit for what the bytes are; None for those that have only bytes."""
    if content.startswith(b"PK\x03\x04"):
        return edited_zip
    if content.startswith(b"\x89HDF"):
        return edited_hdf5
    if content.startswith(b"\x80") and content[1:2] in b"\x02\x03\x04\x05":
        return edited_pickle
    if content[:1] == b"{":
        return edited_json
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content):
        return edited_safetensors
    return edited_onnx if name.endswith(".onnx") else None


def edited_zip(content: bytes, random: Random, marker: str) -> bytes:
    """Entries damaged under right checksums, renamed, taken out, exchanged, compressed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    place, other = random.randrange(len(entries)), random.randrange(len(entries))
    name, inner = entries[place]
    match random.randrange(10):
        case 0:
            del entries[place]
        case 1:
            odd = random.choice(
                ("../x", "/etc/x", "data.pkl", "x/y", name + "\x1b[2J", name.upper(), entries[other][0])
            )
            entries[place] = (odd, inner)
        case 2:
            entries[place], entries[other] = (name, entries[other][1]), (entries[other][0], inner)
        case 3:
            entries.append((random.choice(("config.json", "more/x", "assets/x", "extra")), inner))
        case _:
            # Large entries are mostly numbers; those that are read as something are chosen twice as often.
            if structure(name, inner) is None:
                name, inner = entries[other]
                place = other
            entries[place] = (name, mutated(name, inner, random, marker))
    return _zipped(entries, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def _zipped(entries: list[tuple[str, bytes]], compression: int) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as archive:
        warnings.simplefilter("ignore")  # that a name stands in it twice
        for name, inner in entries:
            archive.writestr(zipfile.ZipInfo(name), inner, compression)
    return buffer.getvalue()
