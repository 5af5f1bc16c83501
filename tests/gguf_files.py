"""Small GGUF files, written by the library gguf."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf import quants

KINDS = gguf.GGMLQuantizationType


def write_gguf(path: Path, kinds: dict[str, KINDS], shape: tuple[int, ...] = (6, 256)) -> Path:
    """A file of tensors of one shape, name -> type; random numbers, and random blocks where the library cannot pack."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("small")
    writer.add_token_list([f"word{number}" for number in range(50)])
    writer.add_token_scores([0.5] * 50)
    for name, kind in kinds.items():
        numbers = random.standard_normal(shape, dtype=np.float32)
        if kind in (KINDS.F32, KINDS.F16):
            writer.add_tensor(name, numbers.astype(np.float16 if kind == KINDS.F16 else np.float32))
            continue
        try:
            packed = quants.quantize(numbers, kind)
        except NotImplementedError:
            elements, size = gguf.GGML_QUANT_SIZES[kind]
            packed = random.integers(0, 60, (*shape[:-1], shape[-1] // elements * size), np.uint8)
        writer.add_tensor(name, packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
