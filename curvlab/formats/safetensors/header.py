"""The header of a safetensors file, checked strictly before anything is read or allocated.

The file is `u64 n`, n bytes of JSON, then the tensors' bytes: every tensor's `data_offsets` must tile the rest of the
file exactly, in any order, without overlap or hole. The reference reader accepts duplicate keys, files without tensors
and empty tensors of absurd dimensions; here these are errors too, because what follows would believe the numbers.
Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from curvlab.errors import CheckpointError
from curvlab.formats import strict_json
from curvlab.formats.dtypes import ITEM_BYTES, SAFETENSORS, SAFETENSORS_WITHOUT_ARITHMETIC, TensorSpec
from curvlab.formats.names import MAX_NAME
from curvlab.quoting import quoted

# A description of one tensor takes about 100 bytes: room for 300,000 of them, and at most about half a gigabyte while
# parsed.
MAX_HEADER_BYTES = 32 * 2**20
MAX_TENSORS = 250_000
MAX_DIMENSIONS = 64
# An empty tensor costs no bytes in the file, so its other dimensions are bounded by what a real layer could have.
MAX_EMPTY_DIMENSION = 2**24


class Entry(NamedTuple):
    """One tensor: what it is and where its bytes stand, counted from the start of the file."""

    spec: TensorSpec
    begin: int
    end: int


class Header(NamedTuple):
    """Tensors in the order of their bytes, the metadata strings, and the size of the file they were checked against."""

    entries: dict[str, Entry]
    metadata: dict[str, str]
    file_bytes: int


def begins_like_header(head: bytes) -> bool:
    """Whether the first bytes of a file are the length of a header below 4 GiB, and the beginning of its JSON."""
    return head[4:9] == b"\0\0\0\0{"


def read_header(path: Path) -> Header:
    """The checked header of a safetensors file.

    Raises:
        CheckpointError: anything that a correct writer does not produce; the sentence names the tensor.
    """
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if file_bytes < 8 or length > file_bytes - 8:
            raise _refused(path, f"its header claims {length} bytes in a file of {file_bytes}", truncated=True)
        if length > MAX_HEADER_BYTES:
            raise _refused(path, f"its header of {length} bytes is beyond the limit of {MAX_HEADER_BYTES}")
        text = file.read(length)
    try:
        table = strict_json.parse(text)
    except ValueError as error:
        raise _refused(path, f"its header cannot be read: {error}") from None
    if not isinstance(table, dict):
        raise _refused(path, f"its header is a JSON {type(table).__name__}, not an object")
    metadata = _checked_metadata(path, table.pop("__metadata__", {}))
    if not table:
        raise _refused(path, "it holds no tensors")
    if len(table) > MAX_TENSORS:
        raise _refused(path, f"it lists {len(table)} tensors, beyond the limit of {MAX_TENSORS}")
    entries = {name: _checked_entry(path, name, entry, 8 + length) for name, entry in table.items()}
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    _check_tiling(path, entries, 8 + length, file_bytes)
    return Header(entries, metadata, file_bytes)


def _checked_metadata(path: Path, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _refused(path, "its metadata is not a table of strings")
    return metadata


def _checked_entry(path: Path, name: str, entry: Any, data: int) -> Entry:
    def refused(what: str) -> CheckpointError:
        return _refused(path, f"tensor {quoted(name)} {what}")

    if len(name) > MAX_NAME:
        raise refused(f"has a name of {len(name)} characters")
    if not _is_text(name):
        raise refused("has a name that is not valid Unicode")
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise refused("is not described by dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if isinstance(code, str) and code in SAFETENSORS_WITHOUT_ARITHMETIC:
        raise CheckpointError(
            f"{quoted(path)} holds numbers of {SAFETENSORS_WITHOUT_ARITHMETIC[code]} bits ({code}) in {quoted(name)}",
            "torch cannot compute with them",
            "convert the weights to bfloat16 or float32",
        )
    if not isinstance(code, str) or code not in SAFETENSORS:
        raise refused(f"has the element type {quoted(code)}, which curvlab does not read")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise refused(f"has the shape {quoted(shape)}, not a list of at most {MAX_DIMENSIONS} sizes")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise refused(f"has the offsets {quoted(offsets)}, not a beginning and an end")
    spec = TensorSpec(tuple(shape), SAFETENSORS[code])
    if spec.elements == 0 and max(shape) > MAX_EMPTY_DIMENSION:
        raise refused(f"has no elements but a dimension of {max(shape)}")
    if spec.elements * ITEM_BYTES[spec.dtype] != offsets[1] - offsets[0]:
        raise refused(
            f"of shape {quoted(shape)} and type {code} needs {spec.stored_bytes} bytes, not {offsets[1] - offsets[0]}"
        )
    return Entry(spec, data + offsets[0], data + offsets[1])


def _check_tiling(path: Path, entries: dict[str, Entry], data: int, file_bytes: int) -> None:
    position = data
    for name, entry in entries.items():
        if entry.begin != position:
            fault = "overlaps the one before it" if entry.begin < position else "leaves a hole before it"
            raise _refused(path, f"the bytes of tensor {quoted(name)} begin at {entry.begin - data}, which {fault}")
        position = entry.end
    if position > file_bytes:
        missing = position - file_bytes
        raise _refused(path, f"it ends {missing} bytes before the last tensor does", truncated=True)
    if position < file_bytes:
        raise _refused(path, f"{file_bytes - position} bytes follow the last tensor")


def _are_sizes(values: Any) -> bool:
    # bool is an int to Python, and true is not a size.
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refused(path: Path, why: str, truncated: bool = False) -> CheckpointError:
    do = (
        "download or copy it again"
        if truncated
        else "download it again, or ask its author to write it with the safetensors library"
    )
    return CheckpointError(f"{quoted(path)} is not a valid safetensors file", why, do)
