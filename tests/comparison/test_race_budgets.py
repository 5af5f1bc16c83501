"""Budgets, clocks, and misses that stay misses, in races in this process."""

from __future__ import annotations

import json
import time

import torch
from race_runs import HOT, on_wine, runs

from curvlab.comparison.race import race
from curvlab.optim import SGD
from curvlab.training.run import Run


def test_a_number_of_steps_is_the_same_for_all():
    found = runs(on_wine(epochs=None, steps=7))
    assert {run.steps for run in found.values()} == {(0, 5, 7)}
    assert {run.epochs for run in found.values()} == {(0, 1, 1.4)}


def test_training_seconds_are_a_budget(monkeypatch):
    """Steps of at least 30 ms: the fifth would begin after 120 ms. The clock of evaluation does not count."""
    take, look = Run.take_step, Run.evaluation

    def slow(run, x, y):
        time.sleep(0.03)
        take(run, x, y)

    def slow_look(run):
        with run.clocks.measure("evaluation"):
            time.sleep(0.2)
        return look(run)

    monkeypatch.setattr(Run, "take_step", slow)
    monkeypatch.setattr(Run, "evaluation", slow_look)
    run = runs(on_wine({"sgd": {}}, epochs=None, seconds=0.1))["sgd"]
    assert 1 <= run.steps[-1] <= 4
    assert run.seconds["train"] >= 0.1
    assert run.train_seconds[-1] <= run.seconds["train"]
    assert run.seconds["evaluation"] >= 0.4


def test_a_budget_of_seconds_holds_for_the_warm_start_too(monkeypatch):
    closures = Run.closures

    def slow(run):
        for closure in closures(run):
            yield lambda closure=closure: (time.sleep(0.03), closure())[1]

    monkeypatch.setattr(Run, "closures", slow)
    run = runs(on_wine({"kfac": {}}, epochs=None, seconds=0.05))["kfac"]
    assert run.steps == (0,)
    assert run.seconds["warm_start"] >= 0.05
    assert run.seconds["train"] >= run.seconds["warm_start"]


def test_the_time_to_the_target_is_on_the_clock_of_training(monkeypatch):
    look = Run.evaluation

    def slow(run):
        with run.clocks.measure("evaluation"):
            time.sleep(0.4)
        return look(run)

    monkeypatch.setattr(Run, "evaluation", slow)
    run = runs(on_wine({"kfac": {}}, target="train.loss<0.3", epochs=3))["kfac"]
    first = next(place for place, loss in enumerate(run.loss) if loss < 0.3)
    assert 0 < first < 3
    assert run.time_to_target == run.train_seconds[first]
    assert run.epochs_to_target == run.epochs[first]
    assert run.epochs[-1] == 3, "nobody stops at the target"
    assert 0 < run.seconds["warm_start"] < run.time_to_target < run.seconds["evaluation"]
    assert 0 < run.seconds["saving"] < run.seconds["train"]


def test_a_target_that_nobody_meets_is_null():
    found = race(on_wine(target="train.loss<1e-9")).to_dict()["training"]
    assert [one["seeds"][0]["time_to_target"] for one in found.values()] == [None, None]
    assert found["sgd"]["over_seeds"]["time_to_target"] == {"median": None, "min": None, "max": None}
    assert found["sgd"]["over_seeds"]["met"] == 0


def test_divergence_is_kept_and_a_miss_even_after_the_target_was_met():
    found = race(on_wine({"sgd": {}, **HOT}, target="train.loss<2", seeds=(0, 1)))
    hot = found.races[0].entrants["hot"]
    assert all(run.diverged and run.reason and run.time_to_target is None for run in hot.runs)
    assert all(run.loss[0] < 2 for run in hot.runs)
    assert hot.last_loss.min is None
    assert found.races[0].entrants["sgd"].met == 2
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_loss_that_is_not_finite_is_null(joining):
    class Broken(SGD):
        """Sets the weights to NaN."""

        name = "broken"

        def move(self, directions):
            with torch.no_grad():
                for p in self.model.parameters():
                    p.fill_(torch.nan)

    joining("broken", Broken)
    run = runs(on_wine({"broken": {}}))["broken"]
    assert run.diverged
    assert run.loss[-1] is None


def test_an_optimizer_that_fails_is_a_sentence(joining):
    class Failing(SGD):
        """Has a bug."""

        name = "failing"

        def update(self, gradients):
            raise RuntimeError("no such luck\nand more")

    joining("failing", Failing)
    found = race(on_wine({"failing": {}, "sgd": {}}, target="train.loss<9")).races[0].entrants
    assert found["failing"].runs[0].failed == "RuntimeError: no such luck"
    assert found["failing"].met == 0
    assert found["sgd"].met == 1
