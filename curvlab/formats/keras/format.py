"""Registers Keras 3 models (.keras)."""

from __future__ import annotations

from curvlab.formats.candidate import Candidate
from curvlab.formats.format import Format, deferred, register


def _detect(candidate: Candidate) -> bool:
    entries = set(candidate.entries)
    return entries >= {"config.json", "metadata.json"} and any(name.startswith("model.weights") for name in entries)


register(
    Format(
        name="keras",
        what="a Keras 3 model (.keras)",
        support="runnable",
        detect=_detect,
        read=deferred("curvlab.formats.keras.file:read_keras"),
        network=deferred("curvlab.formats.keras.network:keras_network"),
        needs="keras, on its torch backend",
        extra="keras",
        suffixes=(".keras",),
    )
)
