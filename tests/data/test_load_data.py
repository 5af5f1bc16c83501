"""What may stand after --data: names, shapes, paths; draws that repeat; sentences for what cannot be."""

from __future__ import annotations

import os

import pytest
import torch

from curvlab.data import load, names
from curvlab.data.registry import ENTRIES
from curvlab.errors import DataError, MemoryBudgetError


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.size], ids=lambda e: e.name)
def test_every_listed_dataset_is_as_listed(entry):
    data = load(entry.name)
    assert len(data) == entry.size
    assert data.task == entry.task
    assert entry.shape.split(" ")[0].rstrip(",") == "x".join(map(str, data.x.shape[1:]))
    assert entry.source in data.source


def test_a_draw_keeps_the_order_and_repeats_with_its_seed():
    whole, drawn, again = load("digits"), load("digits", samples=40, seed=3), load("digits", samples=40, seed=3)
    places = [int((whole.x == x).flatten(1).all(1).nonzero()[0]) for x in drawn.x]
    assert places == sorted(places)
    assert torch.equal(drawn.y, whole.y[places])
    assert torch.equal(drawn.x, again.x)
    assert not torch.equal(drawn.x, load("digits", samples=40, seed=4).x)
    assert "40 of 1797" in drawn.notes[-1]


def test_asking_for_more_than_there_is_gives_everything():
    assert len(load("iris", samples=10_000)) == 150


def test_gaussian_is_synthetic_and_repeats():
    data = load("gaussian:3x4x5", samples=2000, seed=1)
    assert data.synthetic
    assert data.x.shape == (2000, 3, 4, 5)
    assert data.y is None
    assert torch.equal(data.x, load("gaussian", input_shape=(3, 4, 5), samples=2000, seed=1).x)
    # 120,000 draws: five standard errors of the mean and of the variance
    assert abs(data.x.mean()) < 5 / 120_000**0.5
    assert abs(data.x.var() - 1) < 5 * (2 / 120_000) ** 0.5


def test_the_shape_written_down_wins_over_the_models():
    assert load("gaussian:7", input_shape=(3,), samples=2).x.shape == (2, 7)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("gaussian", "--data gaussian:3x32x32"),
        ("gaussian:0x3", "--data gaussian:3x32x32"),
        ("digit", "did you mean 'digits'"),
        ("nothing/like.this", "there is no dataset or file 'nothing/like.this'"),
    ],
)
def test_a_wrong_spec_is_explained(spec, sentence):
    with pytest.raises(DataError, match=sentence):
        load(spec)


def test_a_path_with_a_colon_is_a_path(tmp_path):
    torch.save(torch.ones(3, 2), tmp_path / "run:12")
    assert load(tmp_path / "run:12").x.shape == (3, 2)


def test_a_pipe_and_a_dangling_link_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "link.npz").symlink_to(tmp_path / "gone")
    for name in ("pipe.npz", "link.npz"):
        with pytest.raises(DataError, match="neither a file nor a folder"):
            load(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"x", b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html>"])
def test_what_is_not_data_is_said_to_be_none(tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(DataError, match="not data that can be read"):
        load(tmp_path / "data.npz")


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no data in it"):
        load(tmp_path)


def test_the_budget_is_kept(tmp_path):
    with pytest.raises(MemoryBudgetError, match="4,000,000,000"):
        load("gaussian:1000000", samples=1000, max_memory=10**9)
    torch.save(torch.ones(1000), tmp_path / "x.pt")
    with pytest.raises(MemoryBudgetError, match="the limit"):
        load(tmp_path / "x.pt", max_memory=1000)


def test_names_are_listed_once():
    assert len(set(names())) == len(names())
