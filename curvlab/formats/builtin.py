"""Importing this registers curvlab's own formats, as importing a plugin's module does, in the order of asking."""

from __future__ import annotations

import importlib

ORDER = (
    "curvlab_file.format",
    "huggingface.format",
    "timm.format",
    "safetensors.format",
    "onnx.format",
    "keras.format",
    "hdf5.format",
    "torchscript.format",
    "pt2.format",
    "torch.format",
    "recognised",
)

for _name in ORDER:
    importlib.import_module(f"curvlab.formats.{_name}")
