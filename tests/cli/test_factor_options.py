"""`--factors` and `--factors-from`: one file out, the same numbers back, and a sentence where they do not fit."""

from __future__ import annotations

import json

from commands import WEIGHTS

import curvlab

DATA = ("--data", "digits", "--samples", "60", "--architecture", "mynet:build")


def test_a_file_is_written_and_continued_from(inside, folder):
    made = inside("analyze", "model.safetensors", *DATA, "--factors", "f.safetensors", "--json", "made.json")
    assert made.returncode == 0, made.stderr
    assert "Factors kept" in made.stdout
    assert list(curvlab.load_factors(folder / "f.safetensors")) == ["1", "3"]
    # A network is not needed any more.
    found = inside("analyze", "model.safetensors", "--factors-from", "f.safetensors", "--json", "-")
    assert found.returncode == 0, found.stderr
    before, after = json.loads((folder / "made.json").read_text()), json.loads(found.stdout)
    for one, other in zip(before["layers"], after["layers"], strict=True):
        assert abs(one["kfac"]["kronecker"]["trace"] / other["kfac"]["kronecker"]["trace"] - 1) < 1e-9
        assert one["moments"]["rank"] == other["moments"]["rank"]
    assert after["settings"]["fisher_type"] == before["settings"]["fisher_type"]


def test_what_cannot_be_is_a_sentence(inside):
    both = inside(*WEIGHTS, "--factors-from", "f.safetensors", "--data", "digits")
    assert both.returncode == 2
    assert "take the place of data" in both.stderr
    none = inside(*WEIGHTS, "--factors-from", "missing.safetensors")
    assert none.returncode == 1
    assert "missing.safetensors" in none.stderr
    model = inside(*WEIGHTS, "--factors-from", "model.safetensors")
    assert model.returncode == 1
    assert "is no factor file" in model.stderr
    nowhere = inside("analyze", "model.safetensors", *DATA, "--factors", "no/such/f.safetensors")
    assert nowhere.returncode == 2
    assert "a file in a folder that exists" in nowhere.stderr
