"""What a run leaves in its folder, and what it does with what it finds there."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from training_runs import entries, left_behind, trained

import curvlab
from curvlab.errors import CommandError, MemoryBudgetError
from curvlab.problems.registry import problem
from curvlab.training.evaluation import evaluate
from curvlab.training.run import Run


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


def failing_at(monkeypatch, step):
    take = Run.take_step

    def failing(run, x, y):
        if run.step == step:
            raise MemoryBudgetError("the blocks need more than there is")
        take(run, x, y)

    monkeypatch.setattr(Run, "take_step", failing)


def test_a_run_that_fails_before_its_first_step_leaves_the_folder_free(tmp_path, monkeypatch):
    out = tmp_path / "runs" / "r"
    with monkeypatch.context() as patch:
        failing_at(patch, 0)
        with pytest.raises(MemoryBudgetError):
            trained(out, optimizer="kfac", epochs=1)
    assert not out.exists()
    assert trained(out, optimizer="sgd", epochs=1).status == "finished"


def test_what_is_not_the_runs_stays_when_it_fails(tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("mine")
    failing_at(monkeypatch, 0)
    with pytest.raises(MemoryBudgetError):
        trained(tmp_path, optimizer="kfac", epochs=1)
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_that_fails_later_can_go_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        failing_at(patch, 7)
        with pytest.raises(MemoryBudgetError):
            trained(tmp_path / "two", optimizer="kfac", epochs=2)
    trained(tmp_path / "two", resume=True)
    trained(tmp_path / "one", optimizer="kfac", epochs=2)
    assert left_behind(tmp_path / "two") == left_behind(tmp_path / "one")


def test_an_earlier_run_is_found_before_the_data_is_read(tmp_path):
    trained(tmp_path, optimizer="sgd", epochs=1)
    with pytest.raises(CommandError, match="already holds a run"):
        trained(tmp_path, optimizer="sgd", data=str(tmp_path / "none.npz"))


def test_gates_are_in_the_summary_and_a_null_is_no_silent_pass(tmp_path):
    gates = ("test.accuracy < 0.1", "seconds.total > 0", "best.test.loss > 0 and steps == 5")
    result = trained(tmp_path / "a", optimizer="sgd", epochs=1, fail_if=gates)
    assert [gate["holds"] for gate in result.gates] == [False, True, True]
    assert "steps" not in result.gates[0]["evidence"]
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["gates"][1]["expression"] == "seconds.total > 0"
    # Interrupted in the warm start, before anything was evaluated.
    from curvlab.training.summary_gate import verdicts

    (verdict,) = verdicts(["test.accuracy < 0.1"], {**result.to_dict(), "test": None})
    assert verdict["holds"]
    assert "was not computed" in verdict["evidence"][0]


@pytest.mark.parametrize(("gate", "why"), [("memory.device_peak > 1", "is null"), ("tst.loss > 1", "leads nowhere")])
def test_a_gate_on_what_this_run_does_not_have_is_refused(tmp_path, gate, why):
    with pytest.raises(CommandError, match=f"the gate '{gate}' cannot be decided: .*{why}"):
        trained(tmp_path / "r", optimizer="sgd", epochs=1, fail_if=(gate,))
    assert not (tmp_path / "r").exists()


def test_the_data_has_a_budget(tmp_path):
    with pytest.raises(MemoryBudgetError, match=r"needs 10,680 bytes in memory.*is 10,000"):
        trained(tmp_path / "r", optimizer="sgd", max_memory=10_000)
    assert trained(tmp_path / "r", optimizer="sgd", epochs=1, max_memory=10_680).status == "finished"
