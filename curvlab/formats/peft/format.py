"""Registers adapter folders of PEFT: a low-rank update beside its adapter_config.json."""

from __future__ import annotations

from curvlab.formats.candidate import Candidate
from curvlab.formats.format import Format, deferred, register
from curvlab.formats.peft.place import SETTINGS, WEIGHTS


def _detect(candidate: Candidate) -> bool:
    place = candidate.path
    return candidate.is_directory and (place / SETTINGS).is_file() and any((place / name).exists() for name in WEIGHTS)


register(
    Format(
        name="peft",
        what="an adapter of PEFT",
        support="weights-only",
        detect=_detect,
        read=deferred("curvlab.formats.peft.directory:read_peft"),
        network=deferred("curvlab.formats.peft.network:own_base"),
        on_base=deferred("curvlab.formats.peft.network:on_base"),
        needs="--base with the folder of the model it adapts",
        extra="hf",
    )
)
