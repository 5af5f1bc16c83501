"""Importing this registers curvlab's own formats, as importing a plugin's module does, in the order of asking."""

from __future__ import annotations

import importlib

from curvlab.registry import import_room

ORDER = (
    "curvlab_file.format",
    "peft.format",
    "huggingface.format",
    "timm.format",
    "safetensors.format",
    "onnx.format",
    "keras.format",
    "hdf5.format",
    "torchscript.format",
    "pt2.format",
    "torch.format",
    "gguf.format",
)
"""Those that are asked first; the format of any other folder follows by name."""

import_room("curvlab.formats", ORDER, named="format")
importlib.import_module("curvlab.formats.recognised")
