"""Settings of races: merged as training merges them, and everything wrong said at once."""

from __future__ import annotations

import pytest

from curvlab.comparison.race_settings import ENDLESS, RaceSettings
from curvlab.errors import CommandError


def of(**values):
    given = {"problems": ("wine-mlp",), "optimizers": {"sgd": {}}, **values}
    return RaceSettings(**given)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"problems": ()}, "at least one problem"),
        ({"optimizers": {}}, "at least one optimizer"),
        ({"seeds": ()}, "at least one seed"),
        ({"seeds": (1, 1)}, "a seed is given twice: 1, 1"),
        ({"seeds": (-1,)}, "seeds is (-1,), not a list of whole numbers from 0"),
        ({"problems": ("wine-mlp", "wine-mlp")}, "a problem is given twice"),
        ({"problems": ("wine",)}, "there is no problem 'wine'; did you mean 'wine-mlp'"),
        ({"optimizers": {"kfca": {}}}, "there is no optimizer 'kfca', did you mean 'kfac'"),
        ({"optimizers": {"kfac": {"lr": -1.0}}}, "lr"),
        ({"optimizers": {"a": {"optimizer": "kfac", "dampnig": 1.0}}}, "kfac has no setting 'dampnig'"),
        ({"epochs": 1, "seconds": 2.0}, "one budget, not epochs and seconds"),
        ({"epochs": 0}, "epochs is 0"),
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"target": "train.lost<1"}, "train.lost"),
        ({"target": {"digits-mlp": "train.loss<1"}}, "a target for 'digits-mlp'"),
        ({"problems": ("wine-mlp", "digits-mlp"), "data": "digits"}, "data belongs to one problem"),
        ({"device": "abacus"}, "device is 'abacus'"),
    ],
)
def test_what_is_wrong_is_said(values, sentence):
    with pytest.raises(CommandError) as caught:
        of(**values)
    assert sentence in str(caught.value)


def test_everything_wrong_is_said_at_once_and_once():
    with pytest.raises(CommandError) as caught:
        of(optimizers={"kfca": {}, "sgd": {}}, seeds=(0, 1), threads=0, target="loss")
    text = str(caught.value)
    assert text.startswith("3 things are wrong")
    assert text.count("kfca") == 1
    assert text.count("threads is 0") == 1


def test_a_label_stands_for_an_optimizer_and_its_settings():
    settings = of(optimizers={"strong": {"optimizer": "kfac", "damping": 10.0}, "kfac": {}}, target="train.loss<1")
    run = settings.training("wine-mlp", "strong", 3)
    assert (run.optimizer, run.settings, run.seed, run.target) == ("kfac", {"damping": 10.0}, 3, "train.loss<1")
    assert settings.training("wine-mlp", "kfac", 0).settings == {}


def test_budgets():
    assert of().budget is None
    assert of(steps=3).budget == {"steps": 3}
    assert of(steps=3).training("wine-mlp", "sgd", 0).steps == 3
    timed = of(seconds=0.5)
    assert timed.budget == {"seconds": 0.5}
    assert timed.training("wine-mlp", "sgd", 0).steps == ENDLESS


def test_targets_by_problem():
    settings = of(problems=("wine-mlp", "digits-mlp"), target={"wine-mlp": "test.accuracy>0.9"})
    assert settings.training("wine-mlp", "sgd", 0).target == "test.accuracy>0.9"
    assert settings.training("digits-mlp", "sgd", 0).target is None


def test_what_was_given_cannot_be_changed_afterwards():
    given = {"sgd": {"lr": 0.1}}
    settings = of(optimizers=given)
    given["sgd"]["lr"] = 7.0
    assert settings.training("wine-mlp", "sgd", 0).settings == {"lr": 0.1}
    with pytest.raises(TypeError):
        settings.optimizers["sgd"]["lr"] = 7.0
