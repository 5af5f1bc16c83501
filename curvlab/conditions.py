"""Settings that several commands have alike: loss, seed, device, element type, memory, threads."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from curvlab.field_types import FROM_ONE, SEED, Bound
from curvlab.fields import Setting

LossName = Literal["auto", "cross-entropy", "bce", "mse", "next-token"]
"""Losses by name; "next-token" is cross entropy with targets made of the inputs themselves."""
DtypeName = Literal["float32", "float64"]
THREADS = Bound(1.0, 1024.0)
"""torch would start as many as it is told to, and end the process where the system has no more."""
DEVICES = ("auto", "cpu", "cuda", "mps")


def _no_device(name: str) -> str | None:
    family, colon, index = name.partition(":")
    sound = family in DEVICES and (not colon or re.fullmatch("[0-9]{1,3}", index))
    return None if sound else f"one of {', '.join(DEVICES)} (or cuda:1)"


Seed = Annotated[int, Setting("Seed of every random draw.", SEED)]
Device = Annotated[str, Setting("Where to compute: auto, cpu, cuda, cuda:1, mps.", check=_no_device, written="NAME")]
Threads = Annotated[int | None, Setting("Processor threads to use; as many as torch chooses without.", THREADS)]
MaxMemory = Annotated[int | None, Setting("Stay below this many bytes, such as `8GiB`.", FROM_ONE, written="SIZE")]
Globs = Annotated[tuple[str, ...], Setting("Only layers with such a name; may be repeated.", written="GLOB")]
