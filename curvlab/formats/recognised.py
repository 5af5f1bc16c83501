"""Registers formats that curvlab knows and cannot read: the user is told what the file is, and what to do instead."""

from __future__ import annotations

from pathlib import PurePath

from curvlab.formats.candidate import Candidate
from curvlab.formats.format import Format, register


def _detect_numpy(candidate: Candidate) -> bool:
    of_arrays = candidate.entries and all(PurePath(name).suffix == ".npy" for name in candidate.entries)
    return candidate.head.startswith(b"\x93NUMPY") or bool(of_arrays)


register(
    Format(
        name="tflite",
        what="a TensorFlow Lite model",
        support="recognised only",
        detect=lambda candidate: candidate.head[4:8] == b"TFL3",
        needs="export the original model's weights",
    )
)
register(
    Format(
        name="tensorflow",
        what="a TensorFlow SavedModel",
        support="recognised only",
        detect=lambda candidate: candidate.is_directory and (candidate.path / "saved_model.pb").is_file(),
        needs="save the model as .keras",
    )
)
register(
    Format(
        name="numpy",
        what="a NumPy array file",
        support="recognised only",
        detect=_detect_numpy,
        needs="save the arrays with safetensors.numpy.save_file",
    )
)
