"""`config.json` of Hugging Face and timm directories, as bounded data of one meaning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curvlab.errors import CheckpointError
from curvlab.formats import strict_json
from curvlab.formats.paths import regular_file, stays_inside
from curvlab.quoting import quoted

CONFIG = "config.json"
MAX_CONFIG_BYTES = 4 * 2**20
MAX_DEPTH = 32


def read_config(directory: Path, name: str = CONFIG) -> dict[str, Any]:
    """The table in `config.json`, or in another file of settings beside the weights.

    Raises:
        CheckpointError: missing, a link out of the directory, too long, or no JSON table of one meaning.
    """
    file = directory / name
    regular_file(file)
    stays_inside(file, directory)
    file_bytes = file.stat().st_size
    if file_bytes > MAX_CONFIG_BYTES:
        raise _refused(file, f"it is {file_bytes} bytes long, beyond the limit of {MAX_CONFIG_BYTES}")
    try:
        table = strict_json.parse(file.read_bytes())
    except ValueError as error:
        raise _refused(file, str(error)) from None
    if not isinstance(table, dict):
        raise _refused(file, f"it is a JSON {type(table).__name__}, not an object")
    return table


def settings_of(config: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str, Any]]:
    """(dotted name, key, value) of everything in a configuration, tables within tables included."""
    if depth > MAX_DEPTH:
        return
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(config, dict):
            yield name, str(key), value
        yield from settings_of(value, name, depth + 1)


def _refused(file: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{quoted(file)} is not a valid model configuration", why, "download the model again")
