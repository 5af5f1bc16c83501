"""Small races that several tests run."""

from __future__ import annotations

from curvlab.comparison.race import race
from curvlab.comparison.race_run import run_once
from curvlab.comparison.race_settings import RaceSettings

BOTH = {"sgd": {}, "kfac": {}}
HOT = {"hot": {"optimizer": "sgd", "lr": 1e6}}


def on_wine(optimizers=BOTH, **values):
    """A race on the wines, 5 steps an epoch, all in this process."""
    given = {"epochs": 2, "fresh_process": False, **values}
    return RaceSettings(("wine-mlp",), optimizers, **given)


def runs(settings):
    """label -> the run of the first seed."""
    return {label: one.runs[0] for label, one in race(settings).races[0].entrants.items()}


def in_this_process(monkeypatch):
    """Runs that would have processes of their own are in this one; those of test_race_process.py have their own."""
    monkeypatch.setattr("curvlab.comparison.race.run_apart", lambda *arguments: run_once(*arguments, own_process=False))
