"""Runs from Python: what they leave, how they end, and that going on equals never having stopped."""

from __future__ import annotations

import json
import math
import os
import signal
import threading

import pytest
import torch
from safetensors.torch import load_file
from training_runs import entries, left_behind, trained

import curvlab
from curvlab.errors import CheckpointError, CommandError, CurvlabError, DataError, NumericalError
from curvlab.problems.registry import problem
from curvlab.training.evaluation import evaluate
from curvlab.training.run import Run
from curvlab.training.run_folder import RunFolder
from curvlab.training.state_file import read_state, write_state

NETWORK = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(13, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Dropout(0.3), nn.Linear(12, 3))
"""


@pytest.fixture
def noisy(tmp_path, monkeypatch):
    """A network with batch statistics and dropout: buffers and generators that must be continued."""
    (tmp_path / "noisynet.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    return {"architecture": "noisynet:build", "data": "wine", "batch_size": 26}


def stop_at(monkeypatch, step, number=signal.SIGINT):
    """A signal in the middle of the step after `step`."""
    take = Run.take_step

    def interrupted(run, x, y):
        if run.step == step:
            os.kill(os.getpid(), number)
        take(run, x, y)

    monkeypatch.setattr(Run, "take_step", interrupted)


def test_what_a_run_leaves(tmp_path):
    result = trained(tmp_path / "r", optimizer="kfac", epochs=3)
    assert (result.status, result.steps, result.epochs, result.evaluated) == ("finished", 15, 3, 15)
    lines = entries(tmp_path / "r")
    assert [(one["step"], one["epoch"]) for one in lines] == [(5, 1), (10, 2), (15, 3)]
    keys = {"step", "epoch", "train", "test", "batch_loss", "seconds", "lr", "damping", "failures", "skipped"}
    assert set(lines[-1]) == keys | {"memory", "device_memory"}
    assert lines[-1]["train"] == result.train
    assert lines[-1]["memory"] > 10**7
    assert (lines[-1]["lr"], lines[-1]["damping"]) == (0.03, 0.1)
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["schema"] == "curvlab.training/1"
    needed = {"optimizer", "settings", "steps", "epochs", "train", "test", "seconds", "target", "status"}
    assert needed | {"environment", "seed", "command", "problem", "model", "best", "skipped"} <= set(summary)
    assert summary == result.to_dict()
    assert summary["settings"]["settings"]["damping"] == 0.1
    assert summary["settings"]["settings"]["inverse_interval"] == 20
    assert 0 < summary["seconds"]["warm_start"] <= summary["seconds"]["train"]
    assert set(summary["test"]) == {"loss", "accuracy"}
    assert sum(summary["coverage"].values()) == summary["model"]["parameters"] == 275
    assert {one.name for one in (tmp_path / "r").iterdir()} == {
        *("model.safetensors", "state", "metrics.jsonl", "summary.json")
    }


def test_the_saved_model_is_the_one_that_was_measured(tmp_path):
    result = trained(tmp_path, optimizer="adam", epochs=2)
    module = curvlab.load(str(tmp_path / "model.safetensors")).module
    split = problem("wine-mlp").load(0)
    assert evaluate(module, problem("wine-mlp"), split.test, 7)["loss"] == pytest.approx(result.test["loss"], rel=1e-6)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(len(name) + seed)  # what was drawn before does not matter
        trained(tmp_path / name, optimizer="tnt", epochs=2, seed=seed)
    a, b, c = (left_behind(tmp_path / name) for name in "abc")
    assert a == b
    assert a[0] != c[0]


def test_the_callers_generators_and_threads_are_left_alone(tmp_path):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    trained(tmp_path, optimizer="sgd", epochs=1, threads=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_a_step_is_the_optimizers_own(tmp_path):
    """Against a loop of ten lines without any of the machinery."""
    trained(tmp_path, optimizer="sgd", epochs=2, settings={"lr": 0.1, "momentum": 0.5}, schedule="linear")
    wine = problem("wine-mlp")
    model, split = wine.build(0), wine.load(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    from curvlab.problems.batches import batches

    step = 0
    for epoch in range(2):
        for x, y in batches(split.train, 26, epoch, 0, last="keep"):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 10)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            step += 1
    saved = load_file(tmp_path / "model.safetensors")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(saved[name], value)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", "kfac", "ekfac", "tnt", "shampoo", "block-fisher"])
def test_a_longer_budget_equals_a_run_that_had_it_from_the_start(tmp_path, optimizer):
    trained(tmp_path / "one", optimizer=optimizer, steps=12)
    trained(tmp_path / "two", optimizer=optimizer, steps=7)  # in the middle of the second epoch
    assert [one["step"] for one in entries(tmp_path / "two")] == [5, 7]
    trained(tmp_path / "two", resume=True, steps=12)
    assert left_behind(tmp_path / "two") == left_behind(tmp_path / "one")


@pytest.mark.parametrize("stop", [1, 5, 13])
def test_a_network_that_draws_and_counts_goes_on_exactly(tmp_path, noisy, monkeypatch, stop):
    values = {**noisy, "optimizer": "kfac", "epochs": 3, "schedule": "cosine", "log_every": 2, "dtype": "float64"}
    trained(tmp_path / "one", **values)
    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        first = trained(tmp_path / "two", **values)
    assert (first.status, first.steps) == ("interrupted", stop + 1)
    result = trained(tmp_path / "two", resume=True)
    assert (result.status, result.steps) == ("finished", 18)
    assert left_behind(tmp_path / "two") == left_behind(tmp_path / "one")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_step_and_leaves_handlers_as_they_were(tmp_path, monkeypatch, number):
    before = signal.getsignal(number)
    stop_at(monkeypatch, 7, number)
    result = trained(tmp_path, optimizer="sgd", epochs=4)
    assert (result.status, result.steps, result.evaluated) == ("interrupted", 8, 5)
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "interrupted"
    assert read_state(RunFolder(tmp_path).state)["step"] == 8
    assert signal.getsignal(number) is before


def test_the_second_signal_ends_at_once_and_the_last_state_is_whole(tmp_path, monkeypatch):
    take = Run.take_step

    def interrupted(run, x, y):
        if run.step == 7:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        take(run, x, y)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "take_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "two", optimizer="sgd", epochs=4)
    assert read_state(RunFolder(tmp_path / "two").state)["step"] == 5
    trained(tmp_path / "two", resume=True)
    trained(tmp_path / "one", optimizer="sgd", epochs=4)
    assert left_behind(tmp_path / "two") == left_behind(tmp_path / "one")


def test_an_interruption_of_the_warm_start_begins_it_again(tmp_path, monkeypatch):
    closures = Run.closures

    def interrupted(run):
        for place, closure in enumerate(closures(run)):
            if place == 2:
                os.kill(os.getpid(), signal.SIGINT)
            yield closure

    with monkeypatch.context() as patch:
        patch.setattr(Run, "closures", interrupted)
        assert trained(tmp_path / "two", optimizer="tnt", epochs=2).status == "interrupted"
    trained(tmp_path / "two", resume=True)
    trained(tmp_path / "one", optimizer="tnt", epochs=2)
    assert left_behind(tmp_path / "two") == left_behind(tmp_path / "one")


def test_outside_the_main_thread_there_are_no_signals_to_wait_for(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(trained(tmp_path, optimizer="sgd", epochs=1)))
    thread.start()
    thread.join()
    assert results[0].status == "finished"


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    trained(tmp_path, optimizer="sgd", epochs=2)
    before = left_behind(tmp_path)
    assert trained(tmp_path, resume=True).status == "finished"
    assert left_behind(tmp_path) == before


def test_a_target_ends_the_run_and_is_still_met_afterwards(tmp_path):
    result = trained(tmp_path, optimizer="kfac", epochs=50, target="test.accuracy>0.9 and train.loss<0.3")
    assert (result.status, result.target["met"]) == ("target-met", True)
    assert result.steps < 50
    again = trained(tmp_path, resume=True)
    assert (again.status, again.steps) == ("target-met", result.steps)


def test_a_target_may_be_changed_when_a_run_goes_on(tmp_path):
    first = trained(tmp_path, optimizer="kfac", epochs=2, target="train.loss<0")
    assert (first.status, first.target["met"]) == ("finished", False)
    assert trained(tmp_path, resume=True, target="train.loss<0.9").status == "target-met"


def test_time_that_runs_out_leaves_a_run_that_goes_on(tmp_path):
    trained(tmp_path / "one", optimizer="sgd", steps=8)
    first = trained(tmp_path / "two", optimizer="sgd", steps=8, max_seconds=1e-9)
    assert first.status == "out-of-time"
    assert first.test is not None
    while first.status == "out-of-time":
        first = trained(tmp_path / "two", resume=True, max_seconds=60)
    assert left_behind(tmp_path / "two") == left_behind(tmp_path / "one")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"problem": "wine-mlp", "optimizer": "sgd", "settings": {"lr": 1e6}}, "training loss of step"),
        ({"problem": "diabetes-mlp", "optimizer": "sgd", "settings": {"lr": 1e30}}, "not finite"),
    ],
)
def test_divergence_is_told_and_everything_is_written(tmp_path, values, reason):
    result = trained(tmp_path, epochs=20, **values)
    assert result.status == "diverged"
    assert reason in result.reason
    assert result.steps < 20
    text = (tmp_path / "summary.json").read_text() + (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert read_state(RunFolder(tmp_path).state)["step"] < result.steps
    assert (tmp_path / "model.safetensors").exists()


def test_gradients_that_are_never_finite_are_divergence(tmp_path, monkeypatch):
    """√|0·w| is 0, and its derivative is not a number."""
    (tmp_path / "rootnet.py").write_text(
        "from torch import nn\n"
        "class Root(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x) + (0 * self.weight).abs().sqrt().sum()\n"
        "def build(): return Root(13, 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    values = {"architecture": "rootnet:build", "data": "wine", "batch_size": 26, "epochs": 20}
    result = trained(tmp_path / "r", optimizer="sgd", **values)
    assert (result.status, result.steps, result.skipped) == ("diverged", 10, 10)
    assert "10 steps in a row" in result.reason


def test_a_loss_that_only_an_evaluation_shows_is_divergence(tmp_path, monkeypatch):
    monkeypatch.setattr("curvlab.training.run.evaluate", lambda *_: {"loss": math.nan, "accuracy": 0.1})
    result = trained(tmp_path, optimizer="sgd", epochs=3)
    assert (result.status, result.steps) == ("diverged", 5)
    assert json.loads((tmp_path / "summary.json").read_text())["train"]["loss"] is None


def test_a_numerical_error_of_the_optimizer_is_divergence(tmp_path, monkeypatch):
    take = Run.take_step

    def failing(run, x, y):
        if run.step == 7:
            raise NumericalError("kfac: the inverse for 'fc1' failed 4 times")
        take(run, x, y)

    monkeypatch.setattr(Run, "take_step", failing)
    result = trained(tmp_path, optimizer="kfac", epochs=3)
    assert (result.status, result.steps, result.evaluated) == ("diverged", 7, 7)
    assert "'fc1' failed" in result.reason


def test_an_earlier_run_is_not_overwritten(tmp_path):
    trained(tmp_path, optimizer="sgd", epochs=1, snapshots=1)
    (tmp_path / "mine.txt").write_text("mine")
    before = left_behind(tmp_path)
    with pytest.raises(CommandError, match=r"already holds a run.*--resume.*--force.*--out"):
        trained(tmp_path, optimizer="sgd", epochs=1)
    assert left_behind(tmp_path) == before
    trained(tmp_path, optimizer="adam", epochs=1, force=True)
    assert left_behind(tmp_path) != before
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert list((tmp_path / "snapshots").iterdir()) == []
    with pytest.raises(CommandError, match="exclude each other"):
        trained(tmp_path, resume=True, force=True)


def test_what_cannot_go_on(tmp_path):
    with pytest.raises(CheckpointError, match="no run to continue"):
        trained(tmp_path, resume=True)
    trained(tmp_path, optimizer="sgd", epochs=1)
    with pytest.raises(CommandError, match="optimizer sgd, not kfac"):
        trained(tmp_path, resume=True, optimizer="kfac")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(CurvlabError, match="lines are missing"):
        trained(tmp_path, resume=True)
    path = RunFolder(tmp_path).state
    write_state(path, {**read_state(path), "fingerprint": "another"})
    with pytest.raises(DataError, match="fingerprint differs"):
        trained(tmp_path, resume=True)


def test_a_state_of_another_version_is_refused(tmp_path):
    trained(tmp_path, optimizer="sgd", epochs=1)
    path = RunFolder(tmp_path).state
    state = read_state(path)
    for wrong in ({"step": 3}, {**state, "version": "0"}, {**state, "settings": {"optimizer": "sgd"}}):
        write_state(path, wrong)
        with pytest.raises(CurvlabError, match="not a training state of this version"):
            trained(tmp_path, resume=True)


@pytest.mark.parametrize("part", ["optimizer", "scheduler", "generators", "losses"])
def test_a_state_with_strange_parts_is_one_sentence(tmp_path, part):
    trained(tmp_path, optimizer="sgd", epochs=1)
    path = RunFolder(tmp_path).state
    write_state(path, {**read_state(path), part: 3})
    with pytest.raises(CurvlabError, match="does not fit this version of curvlab") as error:
        trained(tmp_path, resume=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("target", ["damping<1", "device_memory<1e9"])
def test_a_target_on_what_this_run_does_not_have_is_refused(tmp_path, target):
    with pytest.raises(CommandError, match="is null"):
        trained(tmp_path / "r", optimizer="sgd", epochs=1, target=target)
    assert not (tmp_path / "r").exists()


def test_a_network_that_was_changed_meanwhile_is_refused(tmp_path, noisy):
    trained(tmp_path / "r", optimizer="sgd", epochs=1, **noisy)
    path = RunFolder(tmp_path / "r").state
    state = read_state(path)
    state["model"].pop("0.weight")
    write_state(path, state)
    with pytest.raises(CheckpointError, match="its weights have other names"):
        trained(tmp_path / "r", resume=True)


def test_lines_and_half_lines_after_the_saved_step_are_forgotten(tmp_path):
    trained(tmp_path / "one", optimizer="sgd", epochs=3)
    trained(tmp_path / "two", optimizer="sgd", epochs=2)
    with (tmp_path / "two" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13}\n{"st')
    trained(tmp_path / "two", resume=True, epochs=3)
    assert left_behind(tmp_path / "two") == left_behind(tmp_path / "one")


def test_more_lines_more_states_snapshots_and_factors(tmp_path):
    result = trained(tmp_path, optimizer="kfac", epochs=4, log_every=2, save_every=3, snapshots=2, save_factors=True)
    lines = entries(tmp_path)
    assert [one["step"] for one in lines] == [2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20]
    assert [one["step"] for one in lines if one["train"] is not None] == [5, 10, 15, 20]
    assert all(one["batch_loss"] > 0 for one in lines)
    assert sorted(one.name for one in (tmp_path / "snapshots").iterdir()) == [
        *("epoch-0002.safetensors", "epoch-0004.safetensors")
    ]
    last = load_file(tmp_path / "snapshots" / "epoch-0004.safetensors")
    assert all(torch.equal(value, last[name]) for name, value in load_file(tmp_path / "model.safetensors").items())
    factors = load_file(tmp_path / "factors.safetensors")
    assert factors["fc1.input"].shape[-2:] == (14, 14)  # 13 inputs and the 1 of the bias
    assert factors["fc2.gradient"].shape[-2:] == (3, 3)
    assert result.memory["state"] > 4 * 275


def test_batch_loss_is_the_mean_over_the_epochs_examples(tmp_path, monkeypatch):
    losses = []
    take = Run.take_step

    def watched(run, x, y):
        losses.append((torch.nn.functional.cross_entropy(run.model(x), y).item(), len(x)))
        take(run, x, y)

    monkeypatch.setattr(Run, "take_step", watched)
    trained(tmp_path, optimizer="sgd", epochs=2, batch_size=50)  # 50, 50, 30
    for entry, seen in zip(entries(tmp_path), (losses[:3], losses[3:]), strict=True):
        assert [size for _, size in seen] == [50, 50, 30]
        mean = sum(loss * size for loss, size in seen) / 130
        assert entry["batch_loss"] == pytest.approx(mean, rel=1e-5)


def test_a_lone_last_example_is_left_out(tmp_path, noisy):
    """142 examples in batches of 47 leave one over, which batch normalisation could not take."""
    result = trained(tmp_path / "r", optimizer="sgd", epochs=1, **{**noisy, "batch_size": 47})
    assert result.steps == 3


def test_no_warm_start(tmp_path):
    result = trained(tmp_path, optimizer="tnt", epochs=1, warm_start=False)
    assert result.seconds["warm_start"] == 0


def test_a_step_reads_nothing_from_the_device_beside_the_optimizer(tmp_path, monkeypatch):
    """What the optimizer's own step reads is its contract's; the loop adds nothing to it."""
    reads, ours, take = [], [False], Run.take_step

    def watched(run, x, y):
        step = run.optimizer.step

        def theirs(closure):
            ours[0] = False
            loss = step(closure)
            ours[0] = True
            return loss

        theirs._wrapped_by_lr_sched = True  # the scheduler looks for its own mark
        with monkeypatch.context() as patch:
            patch.setattr(run.optimizer, "step", theirs)
            ours[0] = True
            take(run, x, y)
            ours[0] = False

    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        method = getattr(torch.Tensor, name)

        def spy(tensor, *arguments, kept=method, name=name):
            if ours[0]:
                reads.append(name)
            return kept(tensor, *arguments)

        monkeypatch.setattr(torch.Tensor, name, spy)
    monkeypatch.setattr(Run, "take_step", watched)
    trained(tmp_path / "r", optimizer="sgd", epochs=2)
    assert reads == []
    ours[0] = True
    assert bool(torch.tensor(1.0) > 0)
    assert reads == ["__bool__"]  # the spy was there
