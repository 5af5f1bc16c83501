"""Paths that are no model files, and files that stand in for one: each refused in one sentence."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hostile.refusal import refusal
from safetensors.torch import save

from curvlab.errors import CheckpointError
from curvlab.formats.curvlab_file.fop_snapshots import fop_snapshots
from curvlab.formats.load import load

WEIGHTS = save({"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)})
# name -> what makes the path, and words of the sentence.
PATHS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: None, "does not exist"),
    "directory": (lambda p: p.mkdir(), "is a directory that is no model"),
    "dangling link": (lambda p: p.symlink_to("nowhere"), "is a link to 'nowhere', which does not exist"),
    "link to itself": (lambda p: p.symlink_to(p.name), "is a loop of links"),
    "link to a directory": (lambda p: p.symlink_to(p.parent), "is a directory"),
    "named pipe": (lambda p: os.mkfifo(p), "is a named pipe"),
    "device": (lambda p: p.symlink_to("/dev/zero"), "is a device"),
}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("suffix", ["safetensors", "pt", "index.json"])
def test_path(name: str, suffix: str, tmp_path: Path) -> None:
    make, words = PATHS[name]
    path = tmp_path / "folder" / f"model.{suffix}"
    path.parent.mkdir()
    make(path)
    assert words in refusal(path)


def test_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("model.pt")
        assert "is a socket" in refusal(Path("model.pt"))


def test_a_loop_of_two_links(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "is a loop of links" in refusal(tmp_path / "a")


def test_names_that_cannot_be() -> None:
    assert "is not a possible file name" in refusal(Path("a\0b"))
    assert "cannot be reached" in refusal(Path("a" * 5000))


def test_a_name_with_escape_sequences(tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31mred\nline\u202e.pt"
    path.write_bytes(b"nothing")
    sentence = refusal(path)
    assert "\\x1b[31mred\\nline\\u202e.pt" in sentence


def test_a_directory_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    assert "cannot be read: [Errno 13] Permission denied" in refusal(tmp_path)


_LFS = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4665a5ea423c2713d436b5ee50593a9640e0018c1550b5a0002f74190d6caea8\nsize 1000\n"
)

STAND_INS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "two bytes": (b"PK", "starts|begins|claims"),
    "git-lfs pointer": (_LFS.encode(), "is a git-lfs pointer"),
    "web page": (b"<!DOCTYPE html><html><body>Not found</body></html>", "is a web page"),
    "web page with a byte order mark": (b"\xef\xbb\xbf\n <html lang=en>", "is a web page"),
    "storage service's XML": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
    "error message": (b'{"error": "Repository\x1b[2J not found"}', "is text beginning with|error message"),
    "error message in JSON": (b'{"message": "Bad credentials"}', "error message of a server ('Bad credentials')"),
    "configuration": (b'{"model_type": "bert", "hidden_size": 768}', "is a model's configuration"),
    "other JSON": (b'{"a": 1}', "is JSON text"),
    "broken JSON": (b'{"weight_map": ', "it is not JSON"),
    "deep JSON": (b'{"a":' * 200_000, "nested too deep"),
    "JSON of one key twice": (b'{"weight_map": {}, "weight_map": {}}', "stands in it twice"),
    "text": (b"Dear reader, this is no model.", "is text that begins with 'Dear reader"),
    "text like an old pickle": (b"(dear reader\nthis is no model.", "is text that begins"),
    "zeros": (bytes(10_000), "begins with zeros only"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "is compressed (gzip)"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "begins with the bytes 89 50 4e 47"),
    "a mark without its format": (b"\x89HDF", "begins with the bytes"),
    "half a pickle": (b"\x80\x04\x95\x05", "begins like a pickle but is broken"),
    "a pickle of plain values": (b"\x80\x02]q\x00K\x01a.", "is a bare pickle of plain values"),
    "half a zip": (b"PK\x03\x04" + bytes(100), "begins like a zip archive but is broken"),
    "random bytes": (random.Random(0).randbytes(100_000), "begins with the bytes"),
}


@pytest.mark.parametrize("name", STAND_INS)
@pytest.mark.parametrize("suffix", ["bin", "pt"])
def test_stand_in(name: str, suffix: str, tmp_path: Path) -> None:
    content, words = STAND_INS[name]
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(content)
    sentence = refusal(path)
    assert any(word in sentence for word in words.split("|")), sentence


@pytest.mark.parametrize("name", STAND_INS)
def test_stand_in_for_safetensors(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(STAND_INS[name][0])
    refusal(path)


def _beside(folder: Path, name: str, content: bytes) -> None:
    """A file of the folder that is a file outside of it under a second name."""
    outside = folder.parent / f"outside-{name}"
    outside.write_bytes(content)
    (folder / name).hardlink_to(outside)


# What a folder holds beside the hard link -> files, and the name and content of the link.
LINKED: dict[str, tuple[dict[str, str], str, bytes]] = {
    "the only model": ({}, "net.safetensors", WEIGHTS),
    "weights of Hugging Face": ({"config.json": '{"model_type": "bert"}'}, "model.safetensors", WEIGHTS),
    "a configuration": ({}, "config.json", b'{"model_type": "bert"}'),
    "weights of timm": ({"config.json": '{"architecture": "resnet18"}'}, "model.safetensors", WEIGHTS),
    "a run of training": ({"metrics.jsonl": ""}, "model.safetensors", WEIGHTS),
}


@pytest.mark.parametrize(("files", "name", "content"), LINKED.values(), ids=LINKED)
def test_what_a_folder_names_is_no_hard_link(files: dict[str, str], name: str, content: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text)
    _beside(folder, name, content)
    assert "has a second name elsewhere (a hard link)" in refusal(folder)


def test_control_a_hard_link_that_the_user_names(tmp_path: Path) -> None:
    _beside(tmp_path, "net.safetensors", WEIGHTS)
    assert load(tmp_path / "net.safetensors").layers


def test_a_snapshot_that_is_a_pipe_or_a_link_is_not_opened(tmp_path: Path) -> None:
    model, kept = tmp_path / "model.safetensors", tmp_path / "snapshots"
    model.write_bytes(WEIGHTS)
    kept.mkdir()
    os.mkfifo(kept / "epoch-1.safetensors")
    with pytest.raises(CheckpointError, match="a named pipe"):
        fop_snapshots(model)
    (kept / "epoch-1.safetensors").unlink()
    (kept / "epoch-1.safetensors").symlink_to(model)
    with pytest.raises(CheckpointError, match="a link out of the model's folder"):
        fop_snapshots(model)
