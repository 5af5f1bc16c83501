"""HDF5 files changed by their objects: groups, datasets, links and attributes."""

from __future__ import annotations

import contextlib
import io
from random import Random
from typing import Any

from .mutations_json import edited_json


def edited_hdf5(content: bytes, random: Random, marker: str) -> bytes:
    """Objects taken out, moved, linked, replaced; attributes changed, JSON in them as JSON."""
    import h5py

    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        for _ in range(random.choice((1, 1, 2))):
            with contextlib.suppress(OSError, RuntimeError, TypeError, ValueError):  # what HDF5 itself does not write
                _edit_objects(file, random, marker)
    return buffer.getvalue()


def _edit_objects(file: Any, random: Random, marker: str) -> None:
    import h5py

    names: list[str] = []
    file.visit(lambda name: names.append(name))
    if not names:
        return
    name, other = random.choice(names), random.choice(names)
    odd = random.choice(("x", "\x1b[2J", "x" * 3000, "a.b", "layers", "0", "kernel:0"))
    beside = f"{name.rpartition('/')[0]}/{odd}"
    match random.randrange(8):
        case 0:
            del file[name]
        case 1 if beside not in file:
            file.move(name, beside)
        case 2 if beside not in file:
            target = random.choice((file[other], h5py.SoftLink("/" + other), h5py.ExternalLink("/etc/hostname", "/")))
            file[beside] = target
        case 3 | 4:
            owner = file[name]
            del file[name]
            _odd_dataset(file, name, owner, random)
        case _:
            owners = [file, *(file[name] for name in names)]
            texts = [(owner, key) for owner in owners for key in owner.attrs]
            if texts:
                _edit_attribute_of(*random.choice(texts), random, marker)


def _odd_dataset(file: Any, name: str, before: Any, random: Random) -> None:
    import h5py
    import numpy as np

    shape = getattr(before, "shape", (2, 2))
    if getattr(before, "size", 0) > 2**20:  # put in by the edit before, and not to be filled
        shape = (2, 2)
    match random.randrange(7):
        case 0:
            file.create_dataset(
                name, data=np.ones(shape, random.choice(("f2", "f8", ">f4", "i4", "u1", "c8", "S3", "?")))
            )
        case 1:
            file.create_dataset(name, shape[::-1], "f4")
        case 2:
            file.create_dataset(name, (2**20, 2**20), "f4", chunks=(1024, 1024))
        case 3:
            file.create_dataset(name, data=np.zeros((0, 3), "f4"))
        case 4:
            file.create_dataset(name, data=np.zeros(2, [("a", "f4"), ("b", "S4")]))
        case 5:
            file.create_dataset(name, data="text", dtype=h5py.string_dtype())
        case _:
            file.create_dataset(name, data=np.full((*shape, 1), np.nan, "f4"))


def _edit_attribute_of(owner: Any, key: str, random: Random, marker: str) -> None:
    import numpy as np

    value = owner.attrs[key]
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if isinstance(text, str) and text.startswith("{"):
        changed = edited_json(text.encode(), random, marker).decode()
        if len(changed) < 60_000:  # longer ones do not fit an attribute
            owner.attrs[key] = changed
    elif random.random() < 0.3:
        del owner.attrs[key]
    else:
        odd = (7, "text", b"\xff\xfe", np.ones(3), np.array([b"a", b"../x"]), np.array([b"dense"] * 50), 2**62)
        owner.attrs[key] = random.choice(odd)
