"""torch.export archives (.pt2), read without running them: a JSON table of weights, and their raw bytes.

`data/weights/model_weights_config.json` says for every weight which entry of the archive holds it, with type, sizes and
strides. Entries that are pickles of their own (`use_pickle`), custom objects and compiled code are never read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from curvlab.errors import CheckpointError
from curvlab.formats import strict_json
from curvlab.formats.dtypes import ITEM_BYTES
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.formats.tensor_tree import tensors_in_tree
from curvlab.formats.torch.pickle_vetting import Storage, tensor_layout
from curvlab.formats.torch.traced_tensors import laid_out
from curvlab.formats.zip_bytes import ZipBytes
from curvlab.quoting import listed, quoted

MAX_CONFIG_BYTES = 64 * 2**20
MAX_WEIGHTS = 400_000
# `ScalarType` of torch/_export/serde/schema.py.
_TYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    9: "complex32",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu",
    34: "uint32",
    35: "uint64",
}
_WEIGHTS, _CONSTANTS = "data/weights/", "data/constants/"
COMPILED, SAMPLE_INPUTS = "data/aotinductor/", "data/sample_inputs/"
# What torch looks up by name, without regard to case, or tells from a name's beginning, with regard to it.
_KNOWN = (
    *("archive_format", "archive_version", "byteorder", "version", ".data/", "code/", "extra/", "models/"),
    *(_WEIGHTS, _CONSTANTS, COMPILED, SAMPLE_INPUTS, "data/executorch/", "data/mtia", "xl_model_weights/"),
)


def read_pt2(path: Path, max_memory: int | None = None) -> RawCheckpoint:
    """The weights of an exported program under the names they had in the module.

    Raises:
        CheckpointError: pickled weights, custom objects, compiled code alone, or a table that does not fit the bytes.
    """
    archive = ZipBytes(path, max_memory)
    inside = entries_inside(path, archive)
    programs = [name for name in inside if name.startswith("models/") and name.endswith(".json")]
    compiled = any(name.startswith(COMPILED) for name in inside)
    if len(programs) != 1:
        what = "compiled code (AOTInductor), which curvlab never runs," if compiled else f"{len(programs)} programs"
        raise _refused(path, f"it holds {what} instead of one exported program", "export one program with torch.export")
    model = programs[0].removeprefix("models/").removesuffix(".json")
    # torch takes every entry in these two places for a program, and prefers pickled weights to the table of them.
    pickled = {f"{_WEIGHTS}{model}.pt", f"{_CONSTANTS}{model}.pt"} & inside.keys()
    others = [name for name in inside if name.startswith("models/") and name != programs[0]]
    if pickled or others:
        raise _refused(path, f"beside its program it holds {listed(sorted(pickled) or others)}", "export it again")
    tables = (f"{_WEIGHTS}{model}_weights_config.json", f"{_CONSTANTS}{model}_constants_config.json")
    if tables[0] not in inside:
        raise _refused(path, "it holds no table of weights", "export it again with a current torch")
    tensors: dict[str, Tensor] = {}
    shared: dict[tuple[Any, ...], Tensor] = {}
    for table, entries in zip(tables, (_WEIGHTS, _CONSTANTS), strict=True):
        for name, payload in _payloads(path, archive, inside.get(table)).items():
            if name in tensors:
                raise _refused(path, f"two of its tensors are named {quoted(name)}")
            key, tensor = _tensor(path, archive, inside, entries, name, payload)
            tensors[name] = shared.setdefault(key, tensor)
    notes = ("compiled code (AOTInductor) beside the program was left alone",) if compiled else ()
    return tensors_in_tree(path, "pt2", tensors, (*notes, *archive.notes))


def entries_inside(path: Path, archive: ZipBytes) -> dict[str, str]:
    """Names below the archive's folder, in the spelling that torch knows -> names of the entries.

    Raises:
        CheckpointError: an older layout, two folders, or a name that torch would find although it is spelled otherwise.
    """
    if "serialized_exported_program.json" in archive.entries:
        raise _refused(path, "it is of the layout before torch 2.8", "load it there and export it again")
    # torch reads the folder that the first entry is in, whichever that is.
    folder = next(iter(archive.entries)).split("/")[0] + "/"
    if f"{folder}archive_format" not in archive.entries:
        raise _refused(path, f"its first folder {quoted(folder)} holds no archive_format")
    inside = {name.removeprefix(folder): name for name in archive.entries}
    for name, entry in inside.items():
        if not entry.startswith(folder):
            raise _refused(path, f"its entry {quoted(entry)} is outside of its folder {quoted(folder)}")
        if any(name.lower().startswith(known) and not name.startswith(known) for known in _KNOWN):
            raise _refused(path, f"its entry {quoted(entry)} is spelled with other capitals than torch writes")
    return inside


def _payloads(path: Path, archive: ZipBytes, entry: str | None) -> dict[str, Any]:
    if entry is None:
        return {}
    try:
        table = strict_json.parse(archive.read(entry, MAX_CONFIG_BYTES))
    except ValueError as error:
        raise _refused(path, f"its {quoted(entry)} is not usable: {error}") from None
    payloads = table.get("config") if isinstance(table, dict) else None
    if not isinstance(payloads, dict) or len(payloads) > MAX_WEIGHTS:
        raise _refused(path, f"its {quoted(entry)} is no table of tensors")
    return payloads


def _tensor(
    path: Path, archive: ZipBytes, inside: dict[str, str], entries: str, name: str, payload: Any
) -> tuple[tuple[Any, ...], Tensor]:
    """What tells one stored tensor from another, and the tensor."""
    meta = payload.get("tensor_meta") if isinstance(payload, dict) else None
    # Of constants torch goes by the entry's name alone: `opaque_obj_0` is unpickled whatever `use_pickle` says.
    plain = isinstance(payload, dict) and (entries != _CONSTANTS or str(payload.get("path_name")).startswith("tensor_"))
    if not plain or payload.get("use_pickle") is not False or not isinstance(meta, dict):
        raise _refused(
            path,
            f"{quoted(name)} is a pickle or a custom object, not plain numbers",
            "opening it would run code from the file: export the program without it",
        )
    entry, dtype = inside.get(f"{entries}{payload.get('path_name')}"), _TYPES.get(_whole(meta.get("dtype")), "")
    if entry is None or not dtype:
        raise _refused(path, f"{quoted(name)} has no bytes in the archive, or a type that torch has not")
    sizes, strides = (tuple(map(_whole, _listed(meta.get(key)))) for key in ("sizes", "strides"))
    stored = archive.entries[entry].file_size // ITEM_BYTES[dtype]
    storage, offset = Storage(entry, dtype, stored), _whole(meta.get("storage_offset"))
    layout = tensor_layout(path, "torch._utils._rebuild_tensor_v2", (None, offset, sizes, strides), storage)
    return tuple(layout), laid_out(archive[entry], layout)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]


def _whole(value: Any) -> int:
    """`{"as_int": 3}` or 3; −1, which no check lets pass, for anything else."""
    inner = value.get("as_int") if isinstance(value, dict) else value
    return inner if type(inner) is int else -1


def _refused(path: Path, why: str, do: str = "get the model from its author again") -> CheckpointError:
    return CheckpointError(f"{quoted(path)} is a torch.export archive that cannot be read", why, do)
