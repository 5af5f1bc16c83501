"""Targets: decided by an evaluation, refused when they ask for what will not be there."""

from __future__ import annotations

import math

import pytest

from curvlab.errors import CommandError
from curvlab.training.entry import entry_shape
from curvlab.training.target import parse_target

ENTRY = {
    **entry_shape(["accuracy"]),
    "train": {"loss": 0.25, "accuracy": 0.9},
    "test": {"loss": 0.5, "accuracy": 0.95},
    "damping": None,
}


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("test.accuracy>0.94", True),
        ("test.accuracy>=0.95 and train.loss<0.3", True),
        ("test.accuracy>0.95", False),
        ("not train.loss > 0.1", False),
        ("test.loss < 2 * train.loss", False),
        ("test.loss <= 2 * train.loss", True),
        ("damping < 1", False),
        ("damping > 1", False),
    ],
)
def test_met_or_not(text, met):
    assert parse_target(text).met(ENTRY) is met


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_meets_nothing(loss):
    entry = {**ENTRY, "train": {"loss": loss, "accuracy": 0.1}}
    assert not parse_target("train.loss > 1").met(entry)
    assert not parse_target("train.loss < 1").met(entry)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("test.acuracy>0.9", "did you mean 'accuracy'"),
        ("validation.loss<1", "leads nowhere"),
        ("test>1", "not a number"),
        ("any.rank>1", "no layers"),
        ("step > 3 or nothing > 3", "'nothing' leads nowhere"),
    ],
)
def test_paths_that_lead_nowhere(text, sentence):
    (found,) = parse_target(text).missing(entry_shape(["accuracy"]))
    assert sentence in found


def test_every_number_of_an_entry_can_be_asked_for():
    text = "step + epoch + train.loss + test.accuracy + seconds.train + lr + skipped + failures + memory > 0"
    assert parse_target(text).missing(entry_shape(["accuracy"])) == []


@pytest.mark.parametrize("text", ["", "test.accuracy", "test.accuracy>", "import os", "__import__('os') > 1"])
def test_what_is_no_target(text):
    with pytest.raises(CommandError, match="the target"):
        parse_target(text)
