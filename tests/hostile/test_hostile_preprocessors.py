"""preprocessor_config.json is numbers from elsewhere: too many pixels, no numbers, and links end in one sentence."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sequence_models import folder, network

import curvlab
from curvlab.errors import CurvlabError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((2, 4000, 3), np.uint8)).save(tmp_path / "photos" / "0.png")
    return folder(network("ViT"), tmp_path / "model")


def refusal(place: Path) -> str:
    start = time.monotonic()
    with pytest.raises(CurvlabError) as caught:
        curvlab.analyze(str(place), str(place.parent / "photos"), analyses=("moments",), device="cpu")
    assert time.monotonic() - start < 10
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert len(sentence) < 1000
    return sentence


VIT = {"image_processor_type": "ViTImageProcessor"}
SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "a kind with colours": ({"image_processor_type": "\x1b[2J"}, "of the kind"),
    "a kind that is a list": ({"image_processor_type": ["ViT"] * 10**5}, "of the kind"),
    "code": ({"image_processor_type": "Mine", "auto_map": {"AutoImageProcessor": "evil.Mine"}}, "of the kind 'Mine'"),
    "a side of a billion": ({**VIT, "size": {"height": 10**9, "width": 10**9}}, "sets 'size' to"),
    "a side of 10^400": ({**VIT, "size": 10**400}, "sets 'size' to"),
    "a side of none": ({**VIT, "size": {"height": 0, "width": 4}}, "sets 'size' to"),
    "a side below none": ({**VIT, "size": -4}, "sets 'size' to"),
    "a side that is a word": ({**VIT, "size": "\x1b[2J"}, "sets 'size' to"),
    "a long side out of a short one": (
        {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 8000}},
        "would have more than 67,108,864 pixels",
    ),
    "a middle larger than the picture": (
        {**VIT, "size": {"height": 8, "width": 8}, "do_center_crop": True, "crop_size": {"height": 9, "width": 9}},
        "too few",
    ),
    "no deviation": ({**VIT, "size": 16, "image_std": [0.0, 1.0, 1.0]}, "sets 'image_std' to"),
    "a mean of words": ({**VIT, "size": 16, "image_mean": ["a", "b", "c"]}, "sets 'image_mean' to"),
    "a million means": ({**VIT, "size": 16, "image_mean": [0.5] * 10**5}, "sets 'image_mean' to"),
    "two means": ({**VIT, "size": 16, "image_mean": [0.5] * 2, "image_std": [0.5] * 2}, "sets 'image_std' to"),
    "a scale without end": ({**VIT, "size": 16, "rescale_factor": 1e300}, "sets 'rescale_factor' to"),
    "no filter": ({**VIT, "size": 16, "resample": 99}, "sets 'resample' to"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(place: Path, name: str) -> None:
    settings, words = SETTINGS[name]
    (place / "preprocessor_config.json").write_text(json.dumps(settings))
    assert words in refusal(place)


TEXTS = {"no JSON": b"{", "a list": b"[]", "deep": b'{"a":' * 50_000, "NaN": b'{"size": NaN}', "empty": b""}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(place: Path, name: str) -> None:
    (place / "preprocessor_config.json").write_bytes(TEXTS[name])
    assert "preprocessor_config.json'" in refusal(place)


def test_a_link_out_of_the_folder(place: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.json").write_text(json.dumps({**VIT, "size": 16}))
    (place / "preprocessor_config.json").symlink_to(tmp_path / "elsewhere.json")
    assert "is a link out of the model's folder" in refusal(place)
