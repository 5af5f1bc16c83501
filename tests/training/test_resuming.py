"""Going on equals never having stopped, whatever ended the run; and what cannot go on."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest
from training_runs import entries, left_behind, stop_at, trained

from curvlab.errors import CheckpointError, CommandError, CurvlabError, DataError
from curvlab.optim import OPTIMIZERS
from curvlab.training.run import Run
from curvlab.training.run_folder import RunFolder
from curvlab.training.state_file import read_state, write_state


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_longer_budget_equals_a_run_that_had_it_from_the_start(tmp_path, optimizer):
    trained(tmp_path / "one", optimizer=optimizer, steps=12)
    trained(tmp_path / "two", optimizer=optimizer, steps=7)  # in the middle of the second epoch
    assert [one["step"] for one in entries(tmp_path / "two")] == [5, 7]
    trained(tmp_path / "two", resume=True, steps=12)
    assert left_behind(tmp_path / "two") == left_behind(tmp_path / "one")


@pytest.mark.parametrize("optimizer", ["kfac", "ekfac", "tnt", "shampoo", "block-fisher"])
def test_statistics_of_every_fifth_step_go_on_exactly(tmp_path, optimizer):
    """Stopped where neither statistics nor inverses are due: what was known of the network must not be forgotten."""
    intervals = {"statistics_interval": 5, "inverse_interval": 4}
    for warm in (True, False):
        one, two = tmp_path / f"one{warm}", tmp_path / f"two{warm}"
        values = {"optimizer": optimizer, "settings": intervals, "warm_start": warm}
        whole = trained(one, **values, steps=12)
        first = trained(two, **values, steps=7)
        again = trained(two, resume=True)
        assert again.coverage == first.coverage == whole.coverage
        trained(two, resume=True, steps=12)
        assert left_behind(two) == left_behind(one)


@pytest.mark.parametrize("stop", [1, 5, 13])
def test_a_network_that_draws_and_counts_goes_on_exactly(tmp_path, noisy, monkeypatch, stop):
    values = {**noisy, "optimizer": "kfac", "epochs": 3, "schedule": "cosine", "log_every": 2, "dtype": "float64"}
    trained(tmp_path / "one", **values)
    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        first = trained(tmp_path / "two", **values)
    assert (first.status, first.steps) == ("interrupted", stop + 1)
    result = trained(tmp_path / "two", resume=True, trust=True)
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
    write_state(path, {**read_state(path), "fingerprint": "0" * 64})
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
    with pytest.raises(CurvlabError, match=f"of this version of curvlab: its part '{part}' is not ") as error:
        trained(tmp_path, resume=True)
    assert "\n" not in str(error.value)


def test_a_network_that_was_changed_meanwhile_is_refused(tmp_path, noisy):
    trained(tmp_path / "r", optimizer="sgd", epochs=1, **noisy)
    path = RunFolder(tmp_path / "r").state
    state = read_state(path)
    state["model"].pop("0.weight")
    write_state(path, state)
    with pytest.raises(CheckpointError, match="its weights have other names"):
        trained(tmp_path / "r", resume=True, trust=True)


def test_lines_and_half_lines_after_the_saved_step_are_forgotten(tmp_path):
    trained(tmp_path / "one", optimizer="sgd", epochs=3)
    trained(tmp_path / "two", optimizer="sgd", epochs=2)
    with (tmp_path / "two" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13}\n{"st')
    trained(tmp_path / "two", resume=True, epochs=3)
    assert left_behind(tmp_path / "two") == left_behind(tmp_path / "one")
