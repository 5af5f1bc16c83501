"""Writing a safetensors file one tensor after another: the memory of one tensor, and equal contents are equal bytes.

`safetensors.torch.save_file` holds a copy of all tensors as bytes while it writes, and sorts the metadata anew each
time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from curvlab.formats.dtypes import ITEM_BYTES, SAFETENSORS, TensorSpec

_CODES = {name: code for code, name in SAFETENSORS.items()}


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write the tensors, each asked for twice, in an order that keeps every one of them aligned.

    Args:
        path: an existing file is overwritten; `whole_file` makes that one step.
        tensors: by name; on any device, of any strides.
        metadata: strings stored beside them.

    Raises:
        OSError: the file cannot be written.
    """
    specs = {name: _spec(tensors[name]) for name in tensors}
    order = sorted(specs, key=lambda name: -ITEM_BYTES[specs[name].dtype])
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in order:
        begin, end = end, end + specs[name].stored_bytes
        entry = {"dtype": _CODES[specs[name].dtype], "shape": list(specs[name].shape), "data_offsets": [begin, end]}
        header[name] = entry
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            file.write(_bytes(tensors[name]))


def _spec(tensor: Tensor) -> TensorSpec:
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
