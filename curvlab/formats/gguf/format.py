"""Registers GGUF files: weights, quantised or not, for a table of weights."""

from __future__ import annotations

from curvlab.formats.format import Format, deferred, register

register(
    Format(
        name="gguf",
        what="a GGUF model of llama.cpp",
        support="weights-only",
        detect=lambda candidate: candidate.head.startswith(b"GGUF"),
        read=deferred("curvlab.formats.gguf.file:read_gguf"),
        network=deferred("curvlab.formats.gguf.file:no_network"),
        needs="the library gguf; for a full profile the original Hugging Face folder",
        extra="gguf",
        suffixes=(".gguf",),
    )
)
