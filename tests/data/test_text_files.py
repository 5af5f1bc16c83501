"""Text as data: tokenised by the folder's own tokenizer.json and packed; what is missing is said in one sentence."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import copies
import pyarrow
import pyarrow.parquet
import pytest
import torch
from sequence_models import TEXT, folder, network, tokenizer
from tokenizers import Tokenizer

import curvlab
from curvlab.data.corpus import pieces
from curvlab.data.load import load
from curvlab.data.preparation import Preparation
from curvlab.errors import CurvlabError


def ids_of(place: Path, path: Path, name: str, length: int | None = None, samples: int | None = None) -> Any:
    return load(str(path), samples=samples, preparation=Preparation(network(name), (place,), length))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tokenizer(tmp_path)


def test_a_text_is_cut_into_sequences_and_a_rest(place: Path) -> None:
    (place / "a.txt").write_text(TEXT)
    found = ids_of(place, place / "a.txt", "Llama", 16)
    expected = Tokenizer.from_file(str(place / "tokenizer.json")).encode(TEXT).ids
    expected.append(2)  # the configuration's end of a document
    count = len(expected) // 16
    assert found.x.tolist() == [expected[16 * i : 16 * i + 16] for i in range(count)]
    rest = f"{len(expected) % 16} tokens behind them fill no sequence"
    assert found.notes == (f"text: {count} sequences of 16 tokens by tokenizer.json; {rest}",)


def test_samples_count_sequences_from_the_beginning(place: Path) -> None:
    (place / "a.txt").write_text(TEXT * 400)  # more than one piece
    found = ids_of(place, place / "a.txt", "GPT-2", 12, samples=3)
    assert found.x.shape == (3, 12)
    assert found.notes == ("text: the first 3 sequences of 12 tokens by tokenizer.json (--samples, --sequence-length)",)
    everything = ids_of(place, place / "a.txt", "GPT-2")
    assert everything.x.shape == (4096 // 40, 40)  # the network has 40 positions
    assert torch.equal(everything.x.flatten()[:36], found.x.flatten())


def test_a_long_text_in_pieces_is_the_text(tmp_path: Path) -> None:
    text = TEXT * 900
    (tmp_path / "a.txt").write_text(text)
    found = list(pieces(tmp_path / "a.txt"))
    assert "".join(piece.text for piece in found) == text
    assert [piece.begins for piece in found] == [True] + [False] * (len(found) - 1)
    assert [piece.ends for piece in found] == [False] * (len(found) - 1) + [True]
    assert all(piece.text.endswith("\n") for piece in found[:-1])


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_a_long_document_is_the_same_in_every_kind_of_file(name: str, tmp_path: Path) -> None:
    text = TEXT * 600 + "x" * 200_000
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "a.jsonl").write_text(json.dumps(text))
    pyarrow.parquet.write_table(pyarrow.table({"t": [text]}), tmp_path / "a.parquet")
    found = list(pieces(tmp_path / name))
    assert "".join(piece.text for piece in found) == text
    assert max(len(piece.text) for piece in found) <= 2**17
    assert (sum(piece.begins for piece in found), sum(piece.ends for piece in found)) == (1, 1)
    assert found[0].begins
    assert found[-1].ends


def test_a_text_shorter_than_a_sequence_is_one(place: Path) -> None:
    (place / "a.txt").write_text("Call me Ishmael.")
    found = ids_of(place, place / "a.txt", "Llama", 100)
    assert len(found.x) == 1
    assert found.x.shape[1] < 20
    assert found.notes[0].endswith("; there is no more")


def test_documents_of_lines_and_of_a_table_are_those_of_one_another(place: Path) -> None:
    documents = [line for line in TEXT.splitlines() if line]
    (place / "a.jsonl").write_text("\n".join(json.dumps({"id": str(i), "text": d}) for i, d in enumerate(documents)))
    table = pyarrow.table({"name": ["x"] * len(documents), "text": documents})
    pyarrow.parquet.write_table(table, place / "a.parquet")
    lines, column = (ids_of(place, place / name, "Llama", 16) for name in ("a.jsonl", "a.parquet"))
    assert torch.equal(lines.x, column.x)
    inside = Tokenizer.from_file(str(place / "tokenizer.json"))
    expected = [token for text in documents for token in (*inside.encode(text).ids, 2)]
    assert lines.x.flatten().tolist() == expected[: lines.x.numel()]


def test_what_stands_around_a_text_stands_around_every_sequence_of_a_masked_model(tmp_path: Path) -> None:
    tokenizer(tmp_path, "words")
    (tmp_path / "a.txt").write_text(TEXT)
    masked, causal = (ids_of(tmp_path, tmp_path / "a.txt", name, 10).x for name in ("BERT", "Llama"))
    assert masked[:, 0].tolist() == [1] * len(masked)
    assert masked[:, -1].tolist() == [2] * len(masked)
    assert causal[:, 0].tolist() == [1] * len(causal)
    assert not (causal[:-1, -1] == 2).any()
    assert masked[:, 1:-1].flatten()[:9].tolist() == causal[0, 1:].tolist()


def test_a_causal_model_s_documents_begin_and_end_within_a_sequence(tmp_path: Path) -> None:
    tokenizer(tmp_path, "words")
    (tmp_path / "a.jsonl").write_text('"call me"\n"some years"\n')
    (sequence,) = ids_of(tmp_path, tmp_path / "a.jsonl", "Llama", 100).x.tolist()
    first, second = sequence[: sequence.index(2) + 1], sequence[sequence.index(2) + 1 :]
    assert (first[0], first[-1], second[0], second[-1]) == (1, 2, 1, 2)
    assert sequence.count(1) == sequence.count(2) == 2


@pytest.mark.parametrize("name", ["GPT-2", "Mixtral", "T5", "BERT", "Mamba"])
def test_one_command_from_a_folder_and_a_text_to_the_table(name: str, tmp_path: Path) -> None:
    tokenizer(folder(network(name), tmp_path / "model"))
    (tmp_path / "corpus.txt").write_text(TEXT * 3)
    command = ("analyze", "model", "--data", "corpus.txt", "--json", "a.json")
    done = copies.run("-m", "curvlab_cli", *command, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["settings"]["likelihood"] == "categorical"
    assert any("kfac" in layer for layer in found["layers"])


def test_directions_are_compared_on_text(tmp_path: Path) -> None:
    place = tokenizer(folder(network("Llama"), tmp_path / "model"))
    (tmp_path / "corpus.txt").write_text(TEXT * 3)
    found = curvlab.compare(
        str(place),
        mode="directions",
        optimizers=["kfac"],
        data=str(tmp_path / "corpus.txt"),
        samples=8,
        batch_size=4,
    )
    assert "the next token" in " ".join(found.notes)


REFUSED = {
    "latin.txt": (b"caf\xe9 au lait\n", "is no plain text: a byte 0xe9 is no UTF-8"),
    "zeros.txt": (b"\0" * 100, "it holds zero bytes"),
    "empty.txt": (b"", "holds no text"),
    "no.jsonl": (b"{'text': 1}\n", "line 1 of .* is no JSON"),
    "two.jsonl": (b'{"a": "x", "b": "y"}\n', "it has 2 fields of text"),
    "number.jsonl": (b"3\n", "it has 0 fields of text"),
    "deep.jsonl": (b"[" * 200_000 + b"\n", "nested too deep"),
    "long.jsonl": (b'"' + b"a" * (2**24 + 5), "is too long"),
    "no.parquet": (b"PAR1" + b"\xff" * 200 + b"PAR1", "is not a Parquet file that can be read"),
    "cut.parquet": (b"PAR1", "is not a Parquet file that can be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_text_is_said(place: Path, name: str) -> None:
    content, words = REFUSED[name]
    (place / name).write_bytes(content)
    with pytest.raises(CurvlabError, match=words) as caught:
        ids_of(place, place / name, "Llama", 16)
    assert "\n" not in str(caught.value)


def test_a_table_without_text_is_said(place: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"n": [1, 2]}), place / "a.parquet")
    with pytest.raises(CurvlabError, match="it has 0 columns of text"):
        ids_of(place, place / "a.parquet", "Llama", 16)


def test_a_missing_tokenizer_is_said(tmp_path: Path) -> None:
    place = folder(network("Llama"), tmp_path / "model")
    (tmp_path / "a.txt").write_text(TEXT)
    with pytest.raises(CurvlabError, match=r"model' has no tokenizer.json: .*; put the model's tokenizer.json there"):
        curvlab.analyze(str(place), str(tmp_path / "a.txt"), device="cpu")
    with pytest.raises(CurvlabError, match="the model has no folder of its own"):
        curvlab.analyze(network("Llama"), str(tmp_path / "a.txt"), device="cpu")
    with pytest.raises(CurvlabError, match="it takes a saved model's folder"):
        load(str(tmp_path / "a.txt"))


def test_text_is_no_input_of_a_network_for_pictures(place: Path) -> None:
    (place / "a.txt").write_text(TEXT)
    with pytest.raises(CurvlabError, match="ViTForImageClassification takes pixel_values: text is no input of it"):
        ids_of(place, place / "a.txt", "ViT")


def test_longer_sequences_than_positions_are_refused(place: Path) -> None:
    (place / "a.txt").write_text(TEXT)
    with pytest.raises(CurvlabError, match="--sequence-length is 100: GPT2LMHeadModel has 40 positions"):
        ids_of(place, place / "a.txt", "GPT-2", 100)


def test_the_length_of_sequences_is_about_text(tmp_path: Path) -> None:
    with pytest.raises(CurvlabError, match="--sequence-length is about text"):
        curvlab.analyze(network("ViT"), torch.zeros(2, 3, 16, 16), sequence_length=8, device="cpu")


def test_libraries_that_are_missing_are_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "a.txt").write_text(TEXT)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), place / "a.parquet")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CurvlabError, match=r"tokenizers is not installed; pip install 'curvlab\[text\]'"):
        ids_of(place, place / "a.txt", "Llama")
    with pytest.raises(CurvlabError, match="pyarrow, is not installed"):
        list(pieces(place / "a.parquet"))
