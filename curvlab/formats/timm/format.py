"""Registers timm directories, and timm's networks by name."""

from __future__ import annotations

from curvlab.formats.format import Format, NamedNetworks, deferred, register

register(
    Format(
        name="timm",
        what="a timm model directory",
        support="runnable",
        detect=lambda candidate: isinstance(candidate.config.get("architecture"), str),
        read=deferred("curvlab.formats.huggingface.directory:read_timm"),
        network=deferred("curvlab.formats.timm.network:timm_network"),
        needs="timm, and a torchvision built for this torch",
        extra="timm",
        named=NamedNetworks("timm:", deferred("curvlab.formats.timm.network:by_name")),
    )
)
