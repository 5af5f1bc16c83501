"""A folder's tokenizer.json is data from elsewhere: whatever it claims ends in one sentence, in time and memory."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from sequence_models import TEXT, folder, network, tokenizer

import curvlab
import curvlab.data.text as reading
from curvlab.errors import CurvlabError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text(TEXT)
    return tokenizer(folder(network("GPT-2"), tmp_path / "model"))


def refusal(place: Path) -> str:
    start = time.monotonic()
    with pytest.raises(CurvlabError) as caught:
        curvlab.analyze(str(place), str(place.parent / "corpus.txt"), analyses=("moments",), device="cpu", samples=2)
    assert time.monotonic() - start < 30
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "\x1b" not in sentence
    assert len(sentence) < 1000
    return sentence


def outcome(place: Path) -> str | None:
    """The sentence, or None where the text was read after all; soon in either case."""
    start = time.monotonic()
    try:
        curvlab.analyze(str(place), str(place.parent / "corpus.txt"), analyses=("moments",), device="cpu", samples=2)
    except CurvlabError as error:
        return str(error)
    finally:
        assert time.monotonic() - start < 60
    return None


def changed(place: Path, **parts: Any) -> Path:
    path = place / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))
    return place


TEXTS = {
    "empty table": b"{}",
    "no JSON": b"\x1b[31mnothing",
    "a list": b"[1, 2]",
    "deep": b'{"model": ' + b"[" * 200_000,
    "deep table": b'{"added_tokens": ' + b'{"a":' * 100_000,
    "binary": bytes(range(256)) * 8,
    "huge number": b'{"version": 1' + b"0" * 100_000 + b"}",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_are_no_tokenizer(place: Path, name: str) -> None:
    (place / "tokenizer.json").write_bytes(TEXTS[name])
    assert "tokenizer.json' is not a tokenizer that can be read" in refusal(place)


def test_a_tokenizer_without_end(place: Path) -> None:
    (place / "tokenizer.json").unlink()
    with (place / "tokenizer.json").open("wb") as file:
        file.truncate(2**40)
    assert "is too large for a tokenizer" in refusal(place)


@pytest.mark.parametrize("kind", ["link out", "pipe", "folder", "hard link", "dangling"])
def test_places_that_are_no_file_of_the_folder(place: Path, kind: str, tmp_path: Path) -> None:
    path, other = place / "tokenizer.json", tmp_path / "other.json"
    path.rename(other)
    if kind == "link out":
        path.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "hard link":
        path.hardlink_to(other)
    else:
        path.symlink_to(tmp_path / "nothing")
    assert "tokenizer.json'" in refusal(place)


def test_merges_of_tokens_that_are_not_there(place: Path) -> None:
    model = json.loads((place / "tokenizer.json").read_text())["model"]
    assert "is not a tokenizer" in refusal(changed(place, model={**model, "merges": [["no", "such"]] * 1000}))


def test_ids_beyond_the_embedding(place: Path) -> None:
    model = json.loads((place / "tokenizer.json").read_text())["model"]
    beyond = {word: 4_294_967_295 - number for word, number in model["vocab"].items()}
    sentence = refusal(changed(place, model={**model, "vocab": beyond}))
    assert "the embedding has 60 rows" in sentence or "tokenizer.json'" in sentence


def test_a_text_that_grows_in_the_tokenizer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each letter becomes a million, and again: more than any memory."""
    monkeypatch.setattr(reading, "SECONDS", 8)
    monkeypatch.setattr(reading, "physical_memory", lambda: 2**31)
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1_000_000}
    sentence = refusal(changed(place, normalizer={"type": "Sequence", "normalizers": [step] * 3}))
    assert "cannot be tokenised by" in sentence
    assert "memory" in sentence or "computing" in sentence


def test_a_table_that_unpacks_to_more_than_memory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of 256 times the same text of 16 MiB, which the file has once."""
    monkeypatch.setattr(reading, "physical_memory", lambda: 2**31)
    words = pyarrow.array(["a" * 2**24])
    rows = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 256, pyarrow.int32()), words)
    where = place.parent / "corpus.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": rows}), where, compression="zstd", store_schema=False)
    assert (place.parent / "corpus.parquet").stat().st_size < 2**26
    (place.parent / "corpus.txt").unlink()
    (place.parent / "corpus.parquet").rename(place.parent / "corpus.txt")
    found = outcome(place)
    assert found is None or "cannot be tokenised by" in found or "is not a Parquet file" in found


def test_an_expression_without_end(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SECONDS", 3)
    (place.parent / "corpus.txt").write_text("a" * 40_000 + "!")
    split = {"type": "Split", "pattern": {"Regex": "(a|a|aa)+$"}, "behavior": "Isolated", "invert": False}
    assert "tokeni" in refusal(changed(place, pre_tokenizer=split))


def test_more_around_a_text_than_a_sequence_holds(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(TEXT)
    place = tokenizer(folder(network("BERT"), tmp_path / "model"), "words")
    path = place / "tokenizer.json"
    table = json.loads(path.read_text())
    table["post_processor"]["single"] = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}] * 50_000 + [
        {"Sequence": {"id": "A", "type_id": 0}}
    ]
    path.write_text(json.dumps(table))
    assert "have no room for text" in refusal(place)


def test_truncation_and_padding_of_the_file_do_not_hold(place: Path) -> None:
    padding = {"strategy": {"Fixed": 2**30}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    padding |= {"pad_type_id": 0, "pad_token": "[UNK]"}
    truncation = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    changed(place, padding=padding, truncation=truncation)
    found = curvlab.analyze(
        str(place), str(place.parent / "corpus.txt"), analyses=("moments",), device="cpu", samples=2
    )
    assert any("2 sequences of 40 tokens" in note for note in found.notes)
