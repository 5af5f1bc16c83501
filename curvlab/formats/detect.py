"""Which format a path holds, told by its bytes; the extension never decides (`.pt` alone is four formats).

Texts that stand in for a model are refused first (a git-lfs pointer, an error page); then every registered format is
asked; where none says yes, an error says what the path looks like instead.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, NoReturn

from curvlab.errors import CheckpointError, CurvlabError
from curvlab.formats.candidate import Candidate
from curvlab.formats.format import FORMATS, Format
from curvlab.formats.paths import existing, regular_file, stays_inside
from curvlab.quoting import escaped, listed, quoted

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "7-zip",
    b"\x28\xb5\x2f\xfd": "zstandard",
}
_AGAIN = "download the file itself again"


class Found(NamedTuple):
    """The model of a path: its format, the file or directory that holds it, and what to tell the user."""

    format: Format
    path: Path
    notes: tuple[str, ...] = ()


def detect(path: Path) -> Found:
    """The model that `path` holds: itself, or the one file of a directory that holds nothing else.

    Raises:
        CheckpointError: no file, or a file that is no model; one sentence on what it is instead.
    """
    if not existing(path).is_dir():
        regular_file(path)
        candidate = Candidate(path)
        return _asked(candidate) or _refuse(candidate)
    run = path / "model.safetensors"
    if (path / "metrics.jsonl").is_file() and run.is_file():
        return detect(stays_inside(run, path))
    found = _asked(Candidate(path))
    if found is not None:
        return found
    files = _model_files(path)
    if len(files) != 1:
        _refuse_directory(path, files)
    only = detect(stays_inside(regular_file(files[0]), path))
    return only._replace(notes=(f"opened {quoted(only.path.name)}, the only model file of the folder", *only.notes))


def _asked(candidate: Candidate) -> Found | None:
    """What the first format finds that says yes; None where none does."""
    _refuse_stand_ins(candidate)
    known, failed = FORMATS.values(), list[str]()
    for entry in known:
        try:
            if entry.detect(candidate):
                return Found(entry, candidate.path)
        except (CurvlabError, OSError):
            raise
        except Exception as error:  # a format of another package must not keep others from being read
            failed.append(f"the format {quoted(entry.name)} failed to look at it ({type(error).__name__})")
    for entry in known:
        if entry.last_resort is not None and not candidate.is_directory and entry.last_resort(candidate):
            return Found(entry, candidate.path)
    if failed and not candidate.is_directory:
        raise CheckpointError(f"{quoted(candidate.path)} is no model format that curvlab knows", "; ".join(failed))
    return None


def _model_files(directory: Path) -> list[Path]:
    """Files of a directory whose names say that they are models: there is nothing else to go by."""
    suffixes = {suffix for entry in FORMATS.values() for suffix in entry.suffixes}
    return sorted(entry for entry in directory.iterdir() if entry.suffix.lower() in suffixes and entry.is_file())


def _refuse_stand_ins(candidate: Candidate) -> None:
    path, text = candidate.path, candidate.head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{quoted(path)} is a git-lfs pointer", "the model itself was not downloaded", "run `git lfs pull`"
        )
    if re.match(rb"<(!doctype|html|head|body|\?xml|!--)", text, re.IGNORECASE):
        raise CheckpointError(f"{quoted(path)} is a web page (HTML or XML), not a model", do=_AGAIN)
    for mark, name in _PACKED.items():
        if candidate.head.startswith(mark):
            raise CheckpointError(f"{quoted(path)} is compressed ({name})", do="unpack it and give the model inside")


def _refuse_directory(path: Path, files: list[Path]) -> NoReturn:
    names = [file.name for file in files]
    inside = (
        f"it holds {len(names)} model files ({listed(names)})"
        if names
        else "it holds no model file, and neither an *.index.json nor a config.json of a model"
    )
    raise CheckpointError(f"{quoted(path)} is a directory that is no model", inside, "give the model file itself")


def _refuse(candidate: Candidate) -> NoReturn:
    """The error for a file that is of no format: what its bytes look like."""
    if candidate.is_json:
        _refuse_json(candidate)
    if candidate.is_zip:
        _refuse_zip(candidate)
    raise CheckpointError(
        f"{quoted(candidate.path)} is no model format that curvlab knows",
        f"it {_looks_like(candidate.head)}",
        "'curvlab list formats' shows what it can read",
    )


def _refuse_json(candidate: Candidate) -> NoReturn:
    path, table = candidate.path, candidate.parsed()
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


def _refuse_zip(candidate: Candidate) -> NoReturn:
    names = candidate.entries
    roots = list(dict.fromkeys(name.split("/", 1)[0] for name in names))
    inside = f"it holds {listed(names, 3)}" if names else "it is empty"
    if len(roots) > 1 and any(name.split("/")[1:] == ["data.pkl"] for name in names):
        inside = f"its entries stand in several folders ({listed(roots, 3)}), and torch writes one"
    raise CheckpointError(
        f"{quoted(candidate.path)} is a zip archive without a model", inside, "unpack it and give the model"
    )


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
