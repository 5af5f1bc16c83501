"""Registers Hugging Face directories, and their networks for weights beside a `config.json`."""

from __future__ import annotations

from curvlab.formats.candidate import Candidate
from curvlab.formats.format import Format, NamedNetworks, deferred, register


def _detect(candidate: Candidate) -> bool:
    of_timm = isinstance(candidate.config.get("architecture"), str)
    return not of_timm and not {"model_type", "architectures"}.isdisjoint(candidate.config)


register(
    Format(
        name="huggingface",
        what="a Hugging Face model directory",
        support="runnable",
        detect=_detect,
        read=deferred("curvlab.formats.huggingface.directory:read_huggingface"),
        network=deferred("curvlab.formats.huggingface.network:huggingface_network"),
        needs="transformers; --data of tokenised text",
        extra="hf",
        named=NamedNetworks("hf", deferred("curvlab.formats.huggingface.network:network_beside")),
    )
)
