"""Registers ONNX models."""

from __future__ import annotations

from curvlab.formats.format import Format, deferred, register
from curvlab.formats.onnx.reading.outline import is_onnx

register(
    Format(
        name="onnx",
        what="an ONNX model",
        support="runnable",
        detect=lambda candidate: not candidate.is_directory and is_onnx(candidate.path),
        read=deferred("curvlab.formats.onnx.file:read_onnx"),
        network=deferred("curvlab.formats.onnx.running.verified_network:onnx_network"),
        needs="onnxruntime, to check the imported network against it",
        extra="onnx",
        suffixes=(".onnx",),
    )
)
