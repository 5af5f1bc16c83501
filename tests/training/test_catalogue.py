"""The catalogue says what the constructors do."""

from __future__ import annotations

import inspect

import pytest
from torch import nn

from curvlab.optim import OPTIMIZERS, create
from curvlab.optim.catalogue import catalogue, wrong_settings


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_entry_is_complete_and_its_defaults_are_the_real_ones(name):
    entry = catalogue()[name]
    assert entry.description
    assert entry.source
    off = {key for key, value in inspect.signature(OPTIMIZERS[name]).parameters.items() if value.default is None}
    assert {key for key, value in entry.settings.items() if value is None} <= off
    plain = create(name, nn.Linear(3, 2), likelihood="categorical").state_dict()
    spelled = create(name, nn.Linear(3, 2), likelihood="categorical", **entry.settings).state_dict()
    assert plain["param_groups"] == spelled["param_groups"]
    assert "lr" in entry.settings
    for key in set(plain["param_groups"][0]) & set(entry.settings):
        assert plain["param_groups"][0][key] == entry.settings[key]


def test_which_warm_start_and_keep_factors():
    warm = {name for name, entry in catalogue().items() if entry.warm_starts}
    assert {"rmsprop", "kfac", "ekfac", "tnt", "shampoo", "block-fisher"} <= warm
    assert not {"sgd", "adam"} & warm
    assert {"kfac", "tnt"} <= {name for name, entry in catalogue().items() if entry.has_factors}
    assert not catalogue()["adam"].has_factors


def test_one_mistake_does_not_hide_the_next():
    found = wrong_settings(
        "kfac", {"damping": 0, "lr": "x", "rule": "best", "adapt_damping": "yes", "nope": 1, "decay": 0.5}
    )
    assert len(found) == 5
    for part, sentence in zip(
        ("damping is 0", "lr is 'x'", "not one of", "not true or false", "no setting"), found, strict=True
    ):
        assert part in sentence
