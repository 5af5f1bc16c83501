"""Indexes of sharded models from an enemy: nothing outside the folder is opened, nothing inconsistent is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile.refusal import refusal
from safetensors.torch import save_file

from curvlab.formats.load import load

ONE, TWO = "model-1.safetensors", "model-2.safetensors"


def index(folder: Path, content: Any) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def shards(folder: Path) -> dict[str, str]:
    save_file({"a.weight": torch.ones(2, 2)}, folder / ONE)
    save_file({"b.weight": torch.ones(2, 2)}, folder / TWO)
    return {"a.weight": ONE, "b.weight": TWO}


# name -> what becomes of the honest weight_map, and words of the sentence.
PLACES: dict[str, tuple[Callable[[dict[str, str]], Any], str]] = {
    "a list": (lambda m: [m], "weight_map is not a table"),
    "nothing": (lambda m: {}, "weight_map is not a table"),
    "null": (lambda m: None, "weight_map is not a table"),
    "file names that are numbers": (lambda m: {"a.weight": 3}, "'3', which is not a file name"),
    "an empty file name": (lambda m: {"a.weight": ""}, "'', which is not a file name"),
    "out of the folder": (lambda m: {**m, "c": "../../etc/hostname"}, "'../../etc/hostname' is not a plain name"),
    "absolute": (lambda m: {**m, "c": "/etc/hostname"}, "'/etc/hostname' is not a plain name"),
    "of another system": (lambda m: {**m, "c": "..\\x.safetensors"}, "is not a plain name"),
    "the folder itself": (lambda m: {**m, "c": ".."}, "'..' is not a plain name"),
    "with a zero": (lambda m: {**m, "c": "a\0.safetensors"}, "is not a plain name"),
    "of another kind": (lambda m: {**m, "c": "x.bin"}, "'x.bin' is not a safetensors file"),
    "missing shard": (lambda m: {**m, "c": "model-3.safetensors"}, "shard 'model-3.safetensors' is missing"),
    "missing tensor": (lambda m: {**m, "c": ONE}, "'c' is not in its shard"),
    "swapped": (lambda m: {"a.weight": TWO, "b.weight": ONE}, "is said to be in"),
    "colours": (lambda m: {**m, "\x1b[31m": "\x1b[2J"}, "'\\x1b[2J'"),
}


@pytest.mark.parametrize("name", PLACES)
def test_places(name: str, tmp_path: Path) -> None:
    change, words = PLACES[name]
    path = index(tmp_path, {"weight_map": change(shards(tmp_path))})
    assert words in refusal(path)
    assert words in refusal(tmp_path)


@pytest.mark.parametrize("total", [31, 33, -1, True, "32", None, 1e300, [32], "\x1b[2J"])
def test_wrong_totals_are_notes(total: Any, tmp_path: Path) -> None:
    """Every tensor is held against its own shard's header; the total is only said, and says nothing that is read."""
    path = index(tmp_path, {"metadata": {"total_size": total}, "weight_map": shards(tmp_path)})
    loaded = load(path)
    assert list(loaded.tensors) == ["a.weight", "b.weight"]
    (note,) = [note for note in loaded.notes if "total_size" in note]
    assert "and the shards hold 32 bytes" in note
    assert note.isprintable()


def test_the_right_total_loads(tmp_path: Path) -> None:
    path = index(tmp_path, {"metadata": {"total_size": 32}, "weight_map": shards(tmp_path)})
    assert list(load(path).tensors) == ["a.weight", "b.weight"]
    assert not any("total_size" in note for note in load(path).notes)


TEXTS = {
    "key twice": '{"weight_map": {"a.weight": "model-1.safetensors", "a.weight": "model-2.safetensors"}}',
    "metadata that is a list": '{"metadata": [], "weight_map": {"a.weight": "model-1.safetensors"}}',
    "deep": '{"weight_map": ' + "[" * 200_000,
    "not JSON": '{"weight_map": {',
    "NaN": '{"metadata": {"total_size": NaN}, "weight_map": {"a.weight": "model-1.safetensors"}}',
    "a list": "[]",
    "no map": "{}",
    "empty": "",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name: str, tmp_path: Path) -> None:
    shards(tmp_path)
    path = index(tmp_path, TEXTS[name])
    refusal(path)
    refusal(tmp_path)


def test_the_same_tensor_in_two_shards(tmp_path: Path) -> None:
    places = shards(tmp_path)
    save_file({"a.weight": torch.zeros(2, 2), "b.weight": torch.ones(2, 2)}, tmp_path / TWO)
    sentence = refusal(index(tmp_path, {"weight_map": places}))
    assert "'a.weight' is said to be in 'model-1.safetensors' but stands in 'model-2.safetensors'" in sentence


def test_a_shard_that_is_no_file(tmp_path: Path) -> None:
    places = shards(tmp_path)
    (tmp_path / TWO).unlink()
    (tmp_path / TWO).mkdir()
    assert "is a directory" in refusal(index(tmp_path, {"weight_map": places}))


def test_a_shard_that_is_a_link_out_of_the_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "model", tmp_path / "secret.safetensors"
    inside.mkdir()
    places = shards(inside)
    (inside / TWO).rename(outside)
    (inside / TWO).symlink_to(outside)
    assert "is a link out of the model's folder" in refusal(index(inside, {"weight_map": places}))


def test_a_shard_that_is_a_hard_link(tmp_path: Path) -> None:
    folder, outside = tmp_path / "model", tmp_path / "secret.safetensors"
    folder.mkdir()
    places = shards(folder)
    (folder / ONE).rename(outside)
    (folder / ONE).hardlink_to(outside)
    assert "has a second name elsewhere (a hard link)" in refusal(index(folder, {"weight_map": places}))


def test_a_shard_that_is_damaged(tmp_path: Path) -> None:
    places = shards(tmp_path)
    (tmp_path / TWO).write_bytes((tmp_path / TWO).read_bytes()[:-1])
    assert "ends 1 bytes before" in refusal(index(tmp_path, {"weight_map": places}))


def test_several_indexes(tmp_path: Path) -> None:
    places = shards(tmp_path)
    index(tmp_path, {"weight_map": places})
    (tmp_path / "other.safetensors.index.json").write_text("{}")
    assert "holds several indexes" in refusal(tmp_path)
