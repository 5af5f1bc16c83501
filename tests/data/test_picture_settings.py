"""Pictures prepared by a folder's preprocessor_config.json: as transformers' own processors prepare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from sequence_models import folder, network

import curvlab
from curvlab.data.load import load
from curvlab.data.picture_settings import KNOWN
from curvlab.data.preparation import Preparation
from curvlab.errors import CurvlabError

SIZES = ((30, 41), (57, 33), (48, 48))


def photos(place: Path) -> Path:
    """Three pictures of different sizes in two classes."""
    generator = np.random.default_rng(0)
    for number, (h, w) in enumerate(SIZES):
        path = place / "photos" / ("cats" if number < 2 else "dogs") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (h, w, 3), np.uint8)).save(path)
    return place / "photos"


def prepared(place: Path, settings: dict[str, Any]) -> Any:
    (place / "preprocessor_config.json").write_text(json.dumps(settings))
    return load(str(photos(place)), preparation=Preparation(network("ViT"), (place,)))


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {"size": {"height": 32, "width": 28}}) for name in KNOWN if KNOWN[name][1] and name != "DeiT"},
    **{
        name: (name, {"size": {"shortest_edge": 29}, "crop_size": {"height": 24, "width": 25}})
        for name in KNOWN
        if not KNOWN[name][1]
    },
    "middle of a square": ("DeiT", {"size": {"height": 40, "width": 40}, "crop_size": {"height": 31, "width": 31}}),
    "numbers of its own": (
        "ViT",
        {
            "size": {"height": 20, "width": 20},
            "image_mean": [0.1, 0.2, 0.3],
            "image_std": [0.5, 0.6, 0.7],
            "rescale_factor": 0.01,
            "resample": 1,
        },
    ),
    "not normalised": ("ViT", {"size": {"height": 20, "width": 20}, "do_normalize": False}),
    "not scaled": ("ViT", {"size": {"height": 20, "width": 20}, "do_rescale": False}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_as_transformers_prepares_them(name: str, tmp_path: Path) -> None:
    kind, settings = VARIANTS[name]
    processor = getattr(transformers, f"{kind}ImageProcessor")(**settings)
    pictures = [Image.open(path) for path in sorted(photos(tmp_path).rglob("*.png"))]
    expected = torch.from_numpy(np.stack([np.asarray(one) for one in processor(pictures)["pixel_values"]]))
    found = prepared(tmp_path, json.loads(processor.to_json_string()))
    torch.testing.assert_close(found.x, expected.float(), rtol=1e-5, atol=1e-5)
    assert found.key == "pixel_values"
    assert found.y.tolist() == [0, 0, 1]


def test_old_settings_with_one_number_for_the_size(tmp_path: Path) -> None:
    old = {"feature_extractor_type": "ViTFeatureExtractor", "size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    found = prepared(tmp_path, old)
    expected = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    pictures = [Image.open(path) for path in sorted((tmp_path / "photos").rglob("*.png"))]
    wanted = torch.from_numpy(np.stack([np.asarray(one) for one in expected(pictures)["pixel_values"]]))
    torch.testing.assert_close(found.x, wanted, rtol=1e-5, atol=1e-5)


def test_grey_pictures_have_as_many_channels_as_means(tmp_path: Path) -> None:
    path = tmp_path / "photos" / "0.png"
    path.parent.mkdir()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor", "size": 16}')
    found = load(str(tmp_path / "photos"), preparation=Preparation(network("ViT"), (tmp_path,)))
    assert found.x.shape == (1, 3, 16, 16)
    assert found.x.aminmax() == (-1, 1)


def test_a_folder_and_pictures_give_curvature_without_an_option(tmp_path: Path) -> None:
    place = folder(network("ViT"), tmp_path / "model")
    (place / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessorFast", "size": {"height": 16, "width": 16}}'
    )
    found = curvlab.analyze(str(place), str(photos(tmp_path)), device="cpu")
    assert found.data is not None
    assert found.data["input_shape"] == [3, 16, 16]
    assert any(
        "pixels scaled by 0.003922, less 0.5, over 0.5, as preprocessor_config.json says" in n for n in found.notes
    )
    assert found["classifier"].kfac is not None


def test_a_size_of_one_s_own_leaves_the_file_alone(tmp_path: Path) -> None:
    place = folder(network("ViT"), tmp_path / "model")
    (place / "preprocessor_config.json").write_text('{"image_processor_type": "Unheard"}')
    found = curvlab.analyze(str(place), f"{photos(tmp_path)}:16x16", analyses=("moments",), device="cpu")
    assert any("uint8 inputs scaled to [0, 1]" in note for note in found.notes)
    with pytest.raises(CurvlabError, match=r"of the kind 'Unheard', and curvlab knows ViT, .*; give arrays"):
        curvlab.analyze(str(place), str(tmp_path / "photos"), device="cpu")


def test_classes_have_the_numbers_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor", "size": 16}')
    model = network("ViT")
    model.config.label2id = {"dogs": 1, "mice": 0, "cats": 4}
    found = load(str(photos(tmp_path)), preparation=Preparation(model, (tmp_path,)))
    assert found.y is not None
    assert found.y.tolist() == [4, 4, 1]
    assert "classes have the numbers that the model's configuration gives their names" in found.notes
