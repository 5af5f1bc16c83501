"""Which format a path holds, told by its bytes; the extension never decides (`.pt` alone is four formats).

The order matters: texts that stand in for a model first (a git-lfs pointer, an error page), then formats with a mark at
their beginning, then those recognised by structure, and last an error that says what the bytes look like.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

from curvlab.checkpoints import strict_json
from curvlab.checkpoints.inert_pickle import MAX_BYTES, NotAPickle, read_pickle
from curvlab.checkpoints.model_config import CONFIG, read_config
from curvlab.checkpoints.onnx_outline import is_onnx
from curvlab.checkpoints.paths import existing, regular_file, stays_inside
from curvlab.checkpoints.quoting import escaped, listed, quoted
from curvlab.checkpoints.safetensors_header import MAX_HEADER_BYTES
from curvlab.checkpoints.sharded import find_index
from curvlab.checkpoints.zip_archive import open_archive
from curvlab.errors import CheckpointError

HEAD_BYTES = 512
# torch's legacy files begin with the number 0x1950a86a20f9469cfc6c, pickled.
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "7-zip",
    b"\x28\xb5\x2f\xfd": "zstandard",
}
# What a model file may be called; in a directory without a table of its own, the name is all there is to go by.
MODEL_SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pt2", ".onnx", ".keras", ".h5", ".hdf5"})
_AGAIN = "download the file itself again"


def detect(path: Path) -> str:
    """The format's name in `formats.FORMATS`.

    Raises:
        CheckpointError: no file, or a file that is no model; one sentence on what it is instead.
    """
    if existing(path).is_dir():
        return _directory_format(path)
    regular_file(path)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    _refuse_stand_ins(path, head)
    for test in _TESTS:
        name = test(path, head)
        if name is not None:
            return name
    raise CheckpointError(
        f"{quoted(path)} is no model format that curvlab knows",
        f"it {_looks_like(head)}",
        "'curvlab list formats' shows what it can read",
    )


def _directory_format(path: Path) -> str:
    config = path / CONFIG
    kind = _configured(config) if config.is_file() else None
    if kind is not None:
        return kind
    if find_index(path) is not None:
        return "safetensors-sharded"
    if (path / "saved_model.pb").is_file():
        raise CheckpointError(
            f"{quoted(path)} is a TensorFlow SavedModel", "curvlab cannot read it", "save the model as .keras"
        )
    names = [file.name for file in _model_files(path)]
    held = "a model file" if len(names) == 1 else f"{len(names)} model files"
    inside = (
        f"it holds {held} ({listed(names)})"
        if names
        else "it holds no model file, and neither an *.index.json nor a config.json of a model"
    )
    raise CheckpointError(f"{quoted(path)} is a directory that is no model", inside, "give the model file itself")


def only_model(path: Path) -> Path | None:
    """The one model file of a directory that has no configuration and no index; None for every other path.

    Raises:
        CheckpointError: the file is a link out of the directory, or empty; or as `model_config.read_config`.
    """
    if not existing(path).is_dir() or (path / "saved_model.pb").is_file():
        return None
    config = path / CONFIG
    if (config.is_file() and _configured(config) is not None) or find_index(path) is not None:
        return None
    files = _model_files(path)
    return stays_inside(regular_file(files[0]), path) if len(files) == 1 else None


def _model_files(directory: Path) -> list[Path]:
    return sorted(entry for entry in directory.iterdir() if entry.suffix.lower() in MODEL_SUFFIXES and entry.is_file())


def _configured(config: Path) -> str | None:
    """What a `config.json` says its directory is: of timm, of Hugging Face, or nothing when it says neither."""
    table = read_config(config.parent)
    if isinstance(table.get("architecture"), str):
        return "timm"
    return "huggingface" if {"model_type", "architectures"} & table.keys() else None


def _refuse_stand_ins(path: Path, head: bytes) -> None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{quoted(path)} is a git-lfs pointer", "the model itself was not downloaded", "run `git lfs pull`"
        )
    if re.match(rb"<(!doctype|html|head|body|\?xml|!--)", text, re.IGNORECASE):
        raise CheckpointError(f"{quoted(path)} is a web page (HTML or XML), not a model", do=_AGAIN)
    for mark, name in _PACKED.items():
        if head.startswith(mark):
            raise CheckpointError(f"{quoted(path)} is compressed ({name})", do="unpack it and give the model inside")


def _json(path: Path, head: bytes) -> str | None:
    # A safetensors file may begin with "{" too (a header of 123 bytes), but then has zeros among its first eight bytes.
    if not head.lstrip().startswith(b"{") or 0 in head:
        return None
    if path.stat().st_size > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{quoted(path)} is text beginning with '{{'", "it is far too long for an index of shards"
        )
    try:
        table = strict_json.parse(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{quoted(path)} is text beginning with '{{', not a model", str(error)) from None
    if "weight_map" in table:
        return "safetensors-sharded"
    said = next((table[key] for key in ("error", "message", "detail", "errors") if key in table), None)
    if said is not None:
        raise CheckpointError(
            f"{quoted(path)} is an error message of a server ({quoted(said)}), not a model", do=_AGAIN
        )
    if {"model_type", "architectures", "architecture", "config"} & table.keys():
        raise CheckpointError(
            f"{quoted(path)} is a model's configuration", "it holds no weights", "give the weights file beside it"
        )
    raise CheckpointError(f"{quoted(path)} is JSON text", "it has no weight_map, so it is no index of a sharded model")


def _zip(path: Path, head: bytes) -> str | None:
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return None
    with open_archive(path) as archive:
        names = archive.namelist()
    kind = zip_format(names)
    if kind is None:
        roots = list(dict.fromkeys(name.split("/", 1)[0] for name in names))
        inside = f"it holds {listed(names, 3)}" if names else "it is empty"
        if len(roots) > 1 and any(name.split("/")[1:] == ["data.pkl"] for name in names):
            inside = f"its entries stand in several folders ({listed(roots, 3)}), and torch writes one"
        raise CheckpointError(
            f"{quoted(path)} is a zip archive without a model", inside, "unpack it and give the model"
        )
    return kind


def zip_format(names: Iterable[str]) -> str | None:
    """What an archive with these entries is: torch writes all of them below one folder, whose name is free."""
    plain = set(names)
    roots = {name.split("/", 1)[0] for name in plain}
    inner = {name.split("/", 1)[-1] for name in plain} if len(roots) == 1 else set()
    if "data.pkl" in inner:
        return "torchscript" if "constants.pkl" in inner else "torch-zip"
    if {"archive_format", "serialized_exported_program.json"} & (inner | plain):
        return "pt2"
    if ".data/version" in inner | plain:
        return "torch-package"
    if plain >= {"config.json", "metadata.json"} and any(name.startswith("model.weights") for name in plain):
        return "keras"
    if plain and all(name.endswith(".npy") for name in plain):
        return "numpy"
    return None


def _marked(path: Path, head: bytes) -> str | None:
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if LEGACY_MAGIC in head[:32]:
        return "torch-tar" if _is_tar(head) else "torch-legacy"
    if head.startswith(b"GGUF"):
        return "gguf"
    if head[4:8] == b"TFL3":
        return "tflite"
    if head.startswith(b"\x93NUMPY"):
        return "numpy"
    # A safetensors header of 640 bytes begins like a pickle too; zeros and "{" behind its length tell them apart.
    return "pickle" if re.match(rb"\x80[\x02-\x05](?!..\0{4}\{)", head, re.DOTALL) else None


def _safetensors(path: Path, head: bytes) -> str | None:
    return "safetensors" if len(head) > 8 and head[8:9] == b"{" else None


def _onnx(path: Path, head: bytes) -> str | None:
    return "onnx" if is_onnx(path) else None


def _tar(path: Path, head: bytes) -> str | None:
    return "torch-tar" if _is_tar(head) else None


def _old_pickle(path: Path, head: bytes) -> str | None:
    """Pickles of the oldest protocols have no mark: they are recognised by being followed from end to end."""
    if not re.match(rb"[(\]}clpIFLVSN]", head):
        return None
    with path.open("rb") as file:
        stream = io.BytesIO(file.read(MAX_BYTES))
    try:
        read_pickle(stream)
    except NotAPickle:
        return None
    return "pickle" if stream.tell() == path.stat().st_size else None


def _named_safetensors(path: Path, head: bytes) -> str | None:
    """The name decides only where nothing else does: the reader then says what is wrong with the header."""
    return "safetensors" if path.suffix == ".safetensors" else None


_TESTS: tuple[Callable[[Path, bytes], str | None], ...] = (
    _json,
    _zip,
    _marked,
    _safetensors,
    _onnx,
    _tar,
    _old_pickle,
    _named_safetensors,
)


def _is_tar(head: bytes) -> bool:
    if len(head) < tarfile.BLOCKSIZE or not head.strip(b"\0"):
        return False
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _looks_like(head: bytes) -> str:
    if not head.strip(b"\0"):
        return "begins with zeros only"
    try:
        text = head[:40].decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if text and all(c.isprintable() or c.isspace() for c in text):
        return f"is text that begins with '{escaped(text)}'"
    return f"begins with the bytes {head[:16].hex(' ')}"
