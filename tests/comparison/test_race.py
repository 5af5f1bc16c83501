"""Races in this process: equal starts, results that depend on nothing else, and the dictionary they make."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace

import pytest
import torch
from race_runs import BOTH, on_wine, runs
from training_runs import entries, trained

from curvlab.comparison.hashes import data_order_hash, weights_hash
from curvlab.comparison.race import race
from curvlab.errors import CurvlabError
from curvlab.optim import SGD
from curvlab.problems.batches import permutation
from curvlab.problems.registry import problem
from curvlab.training.run import Run
from curvlab.training.run_folder import RunFolder
from curvlab.training.settings import TrainingSettings
from curvlab.training.task import task


def test_a_race_runs_as_training_does(tmp_path):
    """Loss by loss what `curvlab train` logs, to the last bit, for an optimizer that draws and one that does not."""
    found = runs(on_wine(seeds=(3,)))
    for name, run in found.items():
        trained(tmp_path / name, optimizer=name, seed=3, epochs=2)
        logged = entries(tmp_path / name)
        assert run.loss[1:] == tuple(entry["train"]["loss"] for entry in logged)
        assert run.test_loss[1:] == tuple(entry["test"]["loss"] for entry in logged)
        assert run.metrics["test"]["accuracy"][1:] == tuple(entry["test"]["accuracy"] for entry in logged)


def test_the_recommended_settings_are_under_those_given():
    found = race(on_wine({"mine": {"optimizer": "kfac", "damping": 0.5}, "kfac": {}}, epochs=None, steps=1))
    mine, recommended = (found.races[0].entrants[label].settings for label in ("mine", "kfac"))
    assert mine == {**recommended, "damping": 0.5}
    assert recommended["lr"] == problem("wine-mlp").settings["kfac"]["lr"]


def test_all_begin_alike_and_the_start_depends_on_the_seed():
    found = race(on_wine({**BOTH, "tnt": {}}, seeds=(0, 1), epochs=None, steps=3)).races[0].entrants
    for what in ("initial_weights", "data_order"):
        by_seed = [{one.runs[place].hashes[what] for one in found.values()} for place in (0, 1)]
        assert [len(hashes) for hashes in by_seed] == [1, 1]
        assert by_seed[0] != by_seed[1]
    assert found["sgd"].runs[0].hashes["initial_weights"] == weights_hash(problem("wine-mlp").build(0))
    assert len({one.runs[0].loss[0] for one in found.values()}) == 1


def test_the_batches_that_are_used_are_those_that_are_hashed(monkeypatch):
    """The hash computes the order again: here what the steps really get is held against it."""
    used = []
    take = Run.take_step

    def recorded(run, x, y):
        used.append((run, x, y))
        take(run, x, y)

    monkeypatch.setattr(Run, "take_step", recorded)
    race(on_wine({"kfac": {}}, seeds=(4,)))
    run = used[-1][0]
    of_race = [(x, y) for one, x, y in used if one is run]
    order = torch.cat([permutation(len(run.train_part), epoch, 4) for epoch in range(2)])
    assert torch.equal(torch.cat([x for x, _ in of_race]), run.train_part.x[order])
    assert torch.equal(torch.cat([y for _, y in of_race]), run.train_part.y[order])


def test_another_order_has_another_hash(tmp_path):
    def hashed(epochs=2, **values):
        settings = TrainingSettings(optimizer="sgd", problem="wine-mlp", **values)
        return data_order_hash(Run(settings, {}, task(settings), RunFolder(tmp_path)), epochs)

    assert hashed() == hashed()
    others = {hashed(), hashed(seed=1), hashed(batch_size=25), hashed(epochs=3)}
    assert len(others) == 4


def test_weights_are_hashed_by_value_name_and_type():
    layer = torch.nn.Linear(3, 2)
    before = weights_hash(layer)
    assert weights_hash(torch.nn.Sequential(layer)) != before
    assert weights_hash(layer.double()) != before
    assert weights_hash(layer.float()) == before
    with torch.no_grad():
        layer.weight[0, 0] += 1e-6
    assert weights_hash(layer) != before


def test_optimizers_join_by_name(joining):
    class Later(SGD):
        """Of a later day."""

        name = "later"

    joining("later", Later)
    found = runs(on_wine({"sgd": {"lr": 0.05}, "later": {"lr": 0.05}}))
    assert found["later"].loss == found["sgd"].loss


def test_an_unequal_start_is_an_error(joining):
    class Pushing(SGD):
        """Moves the weights before anybody has begun."""

        name = "pushing"

        def __init__(self, model, lr=0.1):
            super().__init__(model, lr=lr)
            with torch.no_grad():
                next(model.parameters()).add_(1e-3)

    joining("pushing", Pushing)
    with pytest.raises(CurvlabError, match=r"seed 0 did not have the same initial weights.*pushing"):
        race(on_wine({"sgd": {}, "pushing": {}}, epochs=None, steps=1))


def test_results_do_not_depend_on_the_order_of_the_optimizers():
    three = {"sgd": {}, "kfac": {}, "fop": {}}
    forward = runs(on_wine(three))
    backward = runs(on_wine(dict(reversed(three.items()))))
    for label in three:
        assert forward[label].loss == backward[label].loss
        assert forward[label].hashes == backward[label].hashes


def test_median_and_range_over_seeds():
    one = race(on_wine({"sgd": {}}, seeds=(0, 1, 2), epochs=1)).races[0].entrants["sgd"]
    last = sorted(run.loss[-1] for run in one.runs)
    assert [one.last_loss.min, one.last_loss.median, one.last_loss.max] == last
    assert [run.seed for run in one.runs] == [0, 1, 2]


def test_the_dictionary_is_the_contract():
    found = race(on_wine({"adam": {}}, epochs=None, steps=2, target="train.loss<0.5")).to_dict()["training"]
    (run,) = found["adam"]["seeds"]
    assert {"loss", "seconds", "time_to_target", "diverged", "peak_memory", "state_bytes"} <= set(run)
    assert {"train", "warm_start", "evaluation"} <= set(run["seconds"])
    assert len(run["loss"]) == len(run["steps"]) == len(run["train_seconds"]) == len(run["test_loss"]) == 2
    parameters = sum(p.numel() for p in problem("wine-mlp").build().parameters())
    assert run["state_bytes"] == 2 * 4 * parameters
    assert run["peak_memory"] is None, "a process that ran others has no peak of this one's"
    assert all(len(text) == 64 for text in run["hashes"].values())
    json.dumps(found, allow_nan=False)


def test_several_problems_have_a_profile():
    settings = replace(on_wine(), problems=("wine-mlp", "diabetes-mlp"), target={"wine-mlp": "train.loss<0.6"})
    found = race(replace(settings, steps=5, epochs=None))
    assert found.profile is None, "one problem with a target is no profile"
    found = race(replace(settings, target="epoch>=1", epochs=1))
    document = found.to_dict()
    assert list(document["races"]) == ["wine-mlp", "diabetes-mlp"]
    profile = document["performance_profile"]
    times = {name: found.races[0].entrants[name].time_to_target.median for name in BOTH}
    assert profile["ratios"]["kfac"]["wine-mlp"] == pytest.approx(times["kfac"] / min(times.values()))
    assert set(found.conditions()["problems"]) == {"wine-mlp", "diabetes-mlp"}


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("curvlab.training.run.write_state", pytest.fail)  # nor is time spent on it meanwhile
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    race(on_wine({"sgd": {}}, threads=threads + 1, epochs=None, steps=1))
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads


def test_data_that_is_not_there_is_told_before_anybody_runs():
    told = []
    with pytest.raises(CurvlabError, match="nowhere"):
        race(on_wine(data="/nowhere.npz"), lambda *progress: told.append(progress))
    assert told == []


def test_progress_is_of_each_run():
    told = []
    race(on_wine({"sgd": {}}, seeds=(0, 1), epochs=1), lambda *progress: told.append(progress))
    assert told[0] == ("sgd, seed 0", 0, None)
    assert ("sgd, seed 0", 5, 5) in told
    assert told[-1] == ("sgd, seed 1", 5, 5)
