"""Registers curvlab's own files."""

from __future__ import annotations

from curvlab.formats.candidate import Candidate
from curvlab.formats.format import Format, deferred, register
from curvlab.formats.safetensors.header import MAX_HEADER_BYTES, begins_like_header

_MARK = b'"curvlab.'


def _detect(candidate: Candidate) -> bool:
    """A safetensors file whose header speaks of curvlab; its reader looks what is said where."""
    if not begins_like_header(candidate.head):
        return False
    with candidate.path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return length <= MAX_HEADER_BYTES and _MARK in file.read(length)


register(
    Format(
        name="curvlab",
        what="a curvlab model (safetensors with its architecture)",
        support="runnable",
        detect=_detect,
        read=deferred("curvlab.formats.curvlab_file.file:read_curvlab_file"),
        network=deferred("curvlab.formats.curvlab_file.file:recorded_network"),
    )
)
