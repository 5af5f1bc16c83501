"""What a network of transformers needs beside its weights, so that the folder of a run can be read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from curvlab.data.convention import is_of_transformers
from curvlab.data.text import TOKENIZER, TextReading
from curvlab.errors import DataError
from curvlab.formats.whole_file import whole_file
from curvlab.training.plain_files import plain_file

CONFIG = "config.json"


def write_companions(folder: Path, module: nn.Module, folders: Sequence[Path]) -> None:
    """config.json of the network, and the tokenizer.json of the folders that it came from, beside its weights.

    Nothing for other networks, and nothing that is there already in these words.

    Raises:
        CheckpointError: a file cannot be written, or something that is no plain file is in its place.
    """
    config: Any = getattr(module, "config", None)
    if not is_of_transformers(module) or not hasattr(config, "to_json_string"):
        return
    table = {**json.loads(config.to_json_string()), "architectures": [type(module).__name__]}
    _write(folder / CONFIG, json.dumps(table, indent=2).encode())
    with suppress(DataError):  # there is none, or none that would be read
        found = TextReading(module, tuple(folders)).tokenizer()
        if found.resolve().parent != folder.resolve():
            _write(folder / TOKENIZER, found.read_bytes())


def _write(path: Path, content: bytes) -> None:
    if plain_file(path) and path.read_bytes() == content:
        return
    with whole_file(path) as beside:
        beside.write_bytes(content)
