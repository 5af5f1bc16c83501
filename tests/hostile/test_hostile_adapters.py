"""adapter_config.json claims what it likes: one sentence, no expression of its own runs, nothing outside is opened."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import adapter, low_rank
from sequence_models import folder, network

import curvlab
from curvlab.errors import CurvlabError

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return folder(network("Llama"), tmp_path / "base")


def refusal(place: Path, base: Path) -> str:
    start = time.monotonic()
    with pytest.raises(CurvlabError) as caught:
        curvlab.load(place, base=base)
    assert time.monotonic() - start < 10
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "\x1b" not in sentence
    assert len(sentence) < 1000
    return sentence


CLAIMS: dict[str, tuple[dict[str, Any], str]] = {
    "an expression": ({"alpha_pattern": {"(a+)+$": 3}}, "no expressions"),
    "a table of scales that is none": ({"alpha_pattern": [1, 2]}, "'alpha_pattern'"),
    "a scale that is a word": ({"lora_alpha": "\x1b[31m"}, "'lora_alpha'"),
    "a scale without end": ({"lora_alpha": 1e300}, "'lora_alpha'"),
    "a scale beyond": ({"alpha_pattern": {"q_proj": 10**400}}, "'alpha_pattern'"),
    "a kind with colours": ({"peft_type": "\x1b[31mLORA"}, "of the kind"),
    "a kind that is none": ({"peft_type": ["LORA"] * 100_000}, "of the kind"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims(tmp_path: Path, base: Path, name: str) -> None:
    settings, words = CLAIMS[name]
    assert words in refusal(adapter(tmp_path / "adapter", low_rank(Q, 16, 16), **settings), base)


TEXTS = {
    "no JSON": b"{",
    "a list": b"[]",
    "deep": b'{"a":' * 50_000,
    "two keys": b'{"r": 1, "r": 2}',
    "NaN": b'{"r": NaN}',
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(tmp_path: Path, base: Path, name: str) -> None:
    place = adapter(tmp_path / "adapter", low_rank(Q, 16, 16))
    (place / "adapter_config.json").write_bytes(TEXTS[name])
    assert "adapter_config.json' is not a valid" in refusal(place, base)


def test_a_file_without_end(tmp_path: Path, base: Path) -> None:
    place = adapter(tmp_path / "adapter", low_rank(Q, 16, 16))
    with (place / "adapter_config.json").open("wb") as file:
        file.truncate(2**40)
    assert "beyond the limit" in refusal(place, base)


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_links_out_of_the_folder(tmp_path: Path, base: Path, file: str) -> None:
    place = adapter(tmp_path / "adapter", low_rank(Q, 16, 16))
    (place / file).rename(tmp_path / "elsewhere")
    (place / file).symlink_to(tmp_path / "elsewhere")
    assert "is a link out of the model's folder" in refusal(place, base)


def test_a_pipe_for_weights(tmp_path: Path, base: Path) -> None:
    place = adapter(tmp_path / "adapter", low_rank(Q, 16, 16))
    (place / "adapter_model.safetensors").unlink()
    os.mkfifo(place / "adapter_model.safetensors")
    assert "is a named pipe" in refusal(place, base)


@pytest.mark.parametrize("layer", ["__class__", "model.__dict__", "..", "model..layers", "forward", "a" * 5000])
def test_names_that_are_no_layer(tmp_path: Path, base: Path, layer: str) -> None:
    refusal(adapter(tmp_path / "adapter", low_rank(layer, 16, 16)), base)


def test_factors_of_no_rank_and_of_huge_rank(tmp_path: Path, base: Path) -> None:
    empty = {f"{Q}.lora_A.weight": torch.zeros(0, 16), f"{Q}.lora_B.weight": torch.zeros(16, 0)}
    refusal(adapter(tmp_path / "adapter", empty), base)
    assert "do not go together" in refusal(
        adapter(
            tmp_path / "other", {f"{Q}.lora_A.weight": torch.zeros(3, 16), f"{Q}.lora_B.weight": torch.zeros(16, 2)}
        ),
        base,
    )


def test_an_adapter_whose_base_is_an_adapter(tmp_path: Path) -> None:
    one = adapter(tmp_path / "one", low_rank(Q, 16, 16), base_model_name_or_path="../two")
    two = adapter(tmp_path / "two", low_rank(Q, 16, 16), base_model_name_or_path="../one")
    assert "gives no network" in refusal(one, two)
    inner = adapter(one / "inner", low_rank(Q, 16, 16), base_model_name_or_path="..")
    assert curvlab.load(inner).module is None
