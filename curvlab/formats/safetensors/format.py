"""Registers safetensors files and sharded models."""

from __future__ import annotations

from curvlab.formats.candidate import Candidate
from curvlab.formats.format import Format, deferred, register
from curvlab.formats.safetensors.header import begins_like_header
from curvlab.formats.safetensors.sharded import find_index


def _detect_sharded(candidate: Candidate) -> bool:
    if candidate.is_directory:
        return find_index(candidate.path) is not None
    return "weight_map" in candidate.table


register(
    Format(
        name="safetensors",
        what="a safetensors file",
        support="weights-only",
        detect=lambda candidate: begins_like_header(candidate.head),
        # The reader then says what is wrong with the header.
        last_resort=lambda candidate: candidate.head[8:9] == b"{" or candidate.path.suffix == ".safetensors",
        read=deferred("curvlab.formats.safetensors.file:read_safetensors"),
        needs="--architecture SPEC to run it",
        suffixes=(".safetensors",),
    )
)
register(
    Format(
        name="safetensors-sharded",
        what="a sharded safetensors model (*.index.json)",
        support="weights-only",
        detect=_detect_sharded,
        read=deferred("curvlab.formats.safetensors.sharded:read_sharded"),
        needs="--architecture SPEC to run it",
    )
)
