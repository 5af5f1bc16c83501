"""Every optimizer trains every small embedded problem: the loss is finite, and falls where settings are recommended."""

from __future__ import annotations

from math import isfinite

import pytest
from training_runs import trained

from curvlab.optim import OPTIMIZERS
from curvlab.problems.registry import problem
from curvlab.training.evaluation import evaluate

EMBEDDED = ("digits-mlp", "digits-autoencoder", "digits-cnn", "digits-linear", "wine-mlp", "diabetes-mlp")
"""Those of which an epoch is a second's work for every optimizer but one."""


@pytest.fixture(scope="module")
def untrained():
    """Training loss of every problem before the first step."""
    return {
        name: evaluate(problem(name).build(0), problem(name), problem(name).load(0).train, 500)["loss"]
        for name in EMBEDDED
    }


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_epoch(tmp_path, untrained, name, optimizer):
    # An exact block of 5140 parameters takes seconds to invert, so that one step must do on the digits.
    exact = optimizer == "block-fisher" and name.startswith("digits")
    budget = {"steps": 1, "warm_start": False} if exact else {"epochs": 1}
    result = trained(tmp_path, problem=name, optimizer=optimizer, threads=1, **budget)
    assert result.status == "finished"
    assert all(isfinite(part["loss"]) for part in (result.train, result.test))
    if optimizer in problem(name).settings:  # its own defaults promise nothing on a problem nobody tuned it for
        assert result.train["loss"] < untrained[name]
    assert result.skipped == 0
    assert result.failures == {}
