"""The embedded datasets against scikit-learn's own copies and against formulas written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import datasets

from curvlab.data import load
from curvlab.data.bundle import EMBEDDED

TABLES = {"wine": "wine", "breast-cancer": "breast_cancer", "iris": "iris"}


@pytest.mark.parametrize("name", ["digits", *TABLES, "diabetes"])
def test_the_bundle_holds_the_numbers_of_scikit_learn(name):
    original = (
        datasets.load_diabetes(scaled=False)
        if name == "diabetes"
        else getattr(datasets, f"load_{TABLES.get(name, name)}")()
    )
    with np.load(EMBEDDED, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays[f"{name}.x"], original.data)
        np.testing.assert_array_equal(arrays[f"{name}.y"], original.target)


def test_the_bundle_is_small_enough_to_travel():
    assert EMBEDDED.stat().st_size < 200_000


def test_digits_are_images_between_0_and_1():
    original, digits = datasets.load_digits(), load("digits")
    assert digits.x.shape == (1797, 1, 8, 8)
    assert digits.x.dtype == torch.float32
    np.testing.assert_array_equal(digits.x[:, 0].numpy() * 16, original.images)
    np.testing.assert_array_equal(digits.y.numpy(), original.target)
    assert digits.y.dtype == torch.int64
    assert (digits.task, digits.synthetic) == ("classification", False)


def test_larger_digits_are_interpolated_bilinearly():
    centres = (np.arange(16) + 0.5) * 8 / 16 - 0.5
    below = np.clip(np.floor(centres), 0, 7).astype(int)
    above, share = np.clip(below + 1, 0, 7), np.clip(centres, 0, 7) - below
    rows = np.zeros((16, 8))
    for place in range(16):
        rows[place, below[place]] += 1 - share[place]
        rows[place, above[place]] += share[place]
    wanted = rows @ (datasets.load_digits().images / 16) @ rows.T
    large = load("digits-16x16")
    assert large.x.shape == (1797, 1, 16, 16)
    np.testing.assert_allclose(large.x[:, 0].numpy(), wanted, atol=1e-6)  # float32 sums of four terms


@pytest.mark.parametrize("name", list(TABLES))
def test_tables_are_standardised(name):
    original, table = getattr(datasets, f"load_{TABLES[name]}")(), load(name)
    wanted = (original.data - original.data.mean(0)) / original.data.std(0)
    np.testing.assert_allclose(table.x.numpy(), wanted, atol=1e-5)  # stored as float32, values below 12
    np.testing.assert_array_equal(table.y.numpy(), original.target)


def test_the_regression_has_standardised_targets_in_a_column():
    original, table = datasets.load_diabetes(scaled=False), load("diabetes")
    wanted = (original.target - original.target.mean()) / original.target.std()
    assert table.task == "regression"
    assert table.y.shape == (442, 1)
    np.testing.assert_allclose(table.y[:, 0].numpy(), wanted, atol=1e-6)
