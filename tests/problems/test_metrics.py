"""Metrics against scikit-learn and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score, r2_score

from curvlab.problems.metrics import accuracy, mean_overlap, reconstruction_error, squared_error
from curvlab.problems.registry import problem


def test_accuracy():
    z, y = torch.randn(50, 4), torch.randint(0, 4, (50,))
    assert accuracy(z, y).item() == pytest.approx(accuracy_score(y, z.argmax(1)))


def test_accuracy_of_pixels():
    z, y = torch.randn(5, 4, 3, 2), torch.randint(0, 4, (5, 3, 2))
    assert accuracy(z, y).item() == pytest.approx(accuracy_score(y.flatten(), z.argmax(1).flatten()))


def test_overlap_is_that_of_every_image_for_itself():
    z, y = torch.randn(6, 5, 4, 4), torch.randint(0, 5, (6, 4, 4))
    y[0] = 2  # few classes in one image, so that absent ones must not count
    z[0, 3:] = -9
    answers = z.argmax(1)
    wanted = [jaccard_score(b.flatten(), a.flatten(), average="macro") for a, b in zip(answers, y, strict=True)]
    assert mean_overlap(z, y).item() == pytest.approx(np.mean(wanted))


def test_reconstruction_error_compares_probabilities():
    z, y = torch.randn(6, 5), torch.rand(6, 5)
    wanted = ((1 / (1 + np.exp(-z.double().numpy())) - y.double().numpy()) ** 2).sum(1).mean()
    assert reconstruction_error(z, y).item() == pytest.approx(wanted, rel=1e-5)


def test_squared_error_is_the_unexplained_share_of_a_standardised_target():
    split = problem("diabetes-mlp").load(0)
    y = torch.cat([split.train.y, split.test.y])
    z = y + 0.3 * torch.randn_like(y)
    assert squared_error(z, y).item() == pytest.approx(1 - r2_score(y, z), rel=1e-5)
