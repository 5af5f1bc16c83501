"""`curvlab train` as a user meets it: exit codes, files, Ctrl-C, kill -9, and the way from a run to its profile."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

WINE = ("train", "--problem", "wine-mlp")


def test_a_run_and_its_profile(process, inside, tmp_path):
    out = tmp_path / "r"
    run = process(*WINE, "--optimizer", "kfac", "--epochs", 3, "--out", out)
    assert run.returncode == 0, run.stderr
    for part in ("wine-mlp", "kfac (lr 0.0300, damping 0.100", "finished after 15 steps, 3 epochs", "accuracy"):
        assert part in run.stdout
    for part in ("warm start", "0 steps skipped", "0 inverses failing", f"curvlab analyze {out}/model.safetensors"):
        assert part in " ".join(run.stdout.split())
    assert "curvlab: training steps" in run.stderr
    profile = inside("analyze", out / "model.safetensors", "--json", "-")
    assert profile.returncode == 0, profile.stderr
    document = json.loads(profile.stdout)
    assert document["data"]["samples"] == 178
    assert document["coverage"]["analyzed"] == document["coverage"]["parameters"] == 275
    assert document["settings"]["likelihood"] == "categorical"


def test_a_target_decides_the_exit_code(inside, tmp_path):
    met = inside(*WINE, "--optimizer", "kfac", "--target", "test.accuracy>0.9", "--out", tmp_path / "a")
    assert met.returncode == 0
    assert "target met after" in met.stdout
    unmet = inside(*WINE, "--optimizer", "sgd", "--epochs", 1, "--target", "train.loss<1e-9", "--out", tmp_path / "b")
    assert unmet.returncode == 3
    assert "was not met in 5 steps" in unmet.stderr
    late = inside(
        *WINE, "--optimizer", "sgd", "--max-seconds", 1e-6, "--target", "train.loss<1e-9", "--out", tmp_path / "c"
    )
    assert late.returncode == 3
    assert json.loads((tmp_path / "c" / "summary.json").read_text())["status"] == "out-of-time"


def test_a_diverged_run_is_neither_profiled_nor_continued(inside, tmp_path):
    run = inside(*WINE, "--optimizer", "kfac", "--set", "lr=1e9", "--out", tmp_path / "r")
    text = " ".join(run.stdout.split())
    assert "model.safetensors of step 0, the last saved" in text
    assert "with --force and lr below 1e+09 or damping above 0.1 (--set)" in text
    assert "curvlab analyze" not in text
    assert "--resume" not in text


def test_gates_decide_the_exit_code(inside, tmp_path):
    options = (*WINE, "--optimizer", "sgd", "--epochs", 1)
    passed = inside(*options, "--fail-if", "skipped>0", "--out", tmp_path / "a")
    assert passed.returncode == 0
    assert "gate: skipped>0: does not hold" in passed.stdout
    failed = inside(*options, "--fail-if", "skipped>0", "--fail-if", "steps==5", "--out", tmp_path / "b")
    assert failed.returncode == 3
    assert "gate 'steps==5' holds: 5 == 5" in failed.stderr
    assert inside(*options, "--fail-if", "steps", "--out", tmp_path / "c").returncode == 2


def test_a_budget_for_the_data(inside, tmp_path):
    run = inside(*WINE, "--optimizer", "sgd", "--max-memory", "10KB", "--out", tmp_path / "r")
    assert run.returncode == 1
    assert "needs 10,680 bytes in memory" in run.stderr
    assert inside(*WINE, "--optimizer", "sgd", "--max-memory", "much").returncode == 2


def test_a_run_that_cannot_be_made_longer_is_not_advised_to_be(inside, tmp_path):
    options = (*WINE, "--optimizer", "sgd", "--epochs", 2)
    fixed = inside(*options, "--schedule", "cosine", "--out", tmp_path / "a")
    assert "go on:" not in fixed.stdout
    assert "go on:" in inside(*options, "--out", tmp_path / "b").stdout


def test_settings_that_exclude_each_other_are_a_wrong_command_line(inside, tmp_path):
    both = ("--set", "step_size=mvp", "--set", "norm_constraint=0.001")
    run = inside(*WINE, "--optimizer", "kfac", *both, "--out", tmp_path / "r")
    assert run.returncode == 2
    assert "which has an effect with step_size=fixed only" in run.stderr


def test_time_that_runs_out_is_no_failure(inside, tmp_path):
    run = inside(*WINE, "--optimizer", "sgd", "--max-seconds", 1e-6, "--out", tmp_path / "r")
    assert run.returncode == 0
    assert "out of time" in run.stdout


def test_divergence_is_code_1_and_one_sentence(inside, tmp_path):
    run = inside(*WINE, "--optimizer", "sgd", "--set", "lr=1e6", "--out", tmp_path / "r", "--json", "-")
    assert run.returncode == 1
    assert run.stderr.count("the run diverged: ") == 1
    assert "start again: with --force and lr below 1e+06 (--set)" in run.stderr
    document = json.loads(run.stdout)
    assert document["status"] == "diverged"
    assert document["settings"]["settings"]["lr"] == 1e6


def test_everything_wrong_is_one_message_with_code_2(inside, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('epohcs = 3\nseed = "x"\n[set]\nlr = -1\n')
    run = inside(
        *("train", "--optimizer", "kfac", "--problem", "wine", "--config", config, "--device", "abacus"),
        *("--set", "rho=1", "--set", "damping", "--target", "loss <", "--batch-size", 0, "--out", tmp_path / "r"),
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert len([line for line in run.stderr.splitlines() if "reading the data" not in line]) == 1
    for part in (
        *("'epohcs', did you mean 'epochs'", "seed is 'x'", "lr is -1", "no setting 'rho'", "--set 'damping'"),
        *("there is no problem 'wine'", "device is 'abacus'", "the target 'loss <'", "batch_size is 0"),
    ):
        assert part in run.stderr
    assert not (tmp_path / "r").exists()


def test_a_file_and_the_command_line_together(inside, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('optimizer = "tnt"\nproblem = "wine-mlp"\nepochs = 9\n[set]\nlr = 0.5\ndamping = 0.3\n')
    run = inside("train", "--config", config, "--epochs", 1, "--set", "lr=0.01", "--out", tmp_path / "r", "--json", "-")
    assert run.returncode == 0
    document = json.loads(run.stdout)
    assert (document["optimizer"], document["steps"]) == ("tnt", 5)
    assert (document["settings"]["settings"]["lr"], document["settings"]["settings"]["damping"]) == (0.01, 0.3)


def test_an_earlier_run_is_kept_unless_told(inside, tmp_path):
    options = (*WINE, "--optimizer", "sgd", "--epochs", 1, "--out", tmp_path / "r")
    assert inside(*options).returncode == 0
    again = inside(*options)
    assert again.returncode == 2
    assert "already holds a run" in again.stderr
    assert inside(*options, "--force").returncode == 0


def test_a_damaged_state_is_one_sentence(inside, tmp_path):
    assert inside(*WINE, "--optimizer", "sgd", "--epochs", 1, "--out", tmp_path).returncode == 0
    state = tmp_path / "state" / "training.state"
    state.write_bytes(state.read_bytes()[:-10])
    run = inside("train", "--resume", "--out", tmp_path)
    assert run.returncode == 1
    assert "is damaged: its checksum does not match" in run.stderr
    assert "bug" not in run.stderr


def test_a_network_of_ones_own_from_the_working_directory(inside, tmp_path):
    options = ("--architecture", "mynet:build", "--data", "digits", "--epochs", 2, "--out", tmp_path)
    run = inside("train", "--optimizer", "tnt", *options)
    assert run.returncode == 0, run.stderr
    assert "cross-entropy, since the targets are whole numbers" in run.stderr
    assert "a model's file names embedded datasets only" not in run.stdout
    assert inside("analyze", tmp_path / "model.safetensors").returncode == 0


def test_after_training_on_a_path_the_profile_asks_for_it(inside, tmp_path):
    generator = np.random.default_rng(0)
    data = tmp_path / "photos.npz"
    np.savez(data, x=generator.random((60, 64), np.float32), y=generator.integers(0, 10, 60))
    options = ("--architecture", "mynet:build", "--data", data, "--epochs", 2, "--out", tmp_path / "r")
    run = inside("train", "--optimizer", "sgd", *options)
    assert run.returncode == 0, run.stderr
    text = " ".join(run.stdout.split())
    whole = "".join(run.stdout.split())  # a path that is longer than a line goes on in the next
    assert f"curvlab analyze {tmp_path}/r/model.safetensors --data {data}".replace(" ", "") in whole
    assert "a model's file names embedded datasets only, never a path" in text
    profile = inside("analyze", tmp_path / "r" / "model.safetensors", "--data", data, "--json", "-")
    assert json.loads(profile.stdout)["data"]["samples"] == 60


def test_a_plan_computes_nothing(inside, folder):
    run = inside(*WINE, "--optimizer", "kfac", "--dry-run")
    assert run.returncode == 0
    assert "100, 5 an epoch of batches of 26" in run.stdout
    assert not (folder / "runs").exists()
    document = json.loads(inside(*WINE, "--optimizer", "kfac", "--dry-run", "--json", "-").stdout)
    assert (document["parameters"], document["steps"], document["train_examples"]) == (275, 100, 130)


def test_plots(inside, tmp_path):
    plots = tmp_path / "plots"
    options = ("--optimizer", "sgd", "--epochs", 3, "--out", tmp_path / "r", "--plots", plots)
    assert inside(*WINE, *options).returncode == 0
    assert (plots / "loss.png").read_bytes().startswith(b"\x89PNG")
    svg = (plots / "loss.svg").read_text()
    assert "<svg" in svg
    assert svg.count("<!-- ") > 5  # text is drawn as outlines, each with its words in a comment
    for words in ("epoch", "training seconds", "loss (categorical)", "train", "test", "wine-mlp, sgd, seed 0"):
        assert f"<!-- {words} -->" in svg


def test_the_help_names_every_option(process):
    text = process("train", "--help", env={"COLUMNS": "200"}).stdout
    for option in (
        *("--optimizer", "--problem", "--architecture", "--data", "--loss", "--set", "--config", "--batch-size"),
        *("--schedule", "--no-warm-start", "--seed", "--epochs", "--steps", "--target", "--max-seconds", "--device"),
        *("--dtype", "--threads", "--dry-run", "--out", "--resume", "--force", "--save-every", "--log-every"),
        *("--snapshots", "--save-factors", "--plots", "--json", "--max-memory", "--fail-if"),
        *("[set]", "Examples"),
    ):
        assert option in text
    panels = [text.index(f"─ {panel} ─") for panel in ("What is trained", "How", "How long", "Limits", "Output")]
    assert panels == sorted(panels)


def test_help_loads_no_torch():
    code = (
        "import sys\nfrom curvlab_cli.main import run\nsys.argv = ['curvlab', 'train', '--help']\n"
        "try: run()\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.splitlines()[-1] == "False"


def test_no_optimizer_is_said(inside):
    assert "no optimizer is given" in inside("train", "--problem", "wine-mlp").stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--loss", "mse"),
        ("--warm-start",),
        ("--save-factors",),
        ("--snapshots", "50"),
        ("--log-every", "5000"),
        ("--save-every", "5000"),
        ("--dry-run", "--plots", "p"),
        ("--dry-run", "--force"),
        ("--dry-run", "--fail-if", "steps>1"),
    ],
    ids=" ".join,
)
def test_an_option_without_effect_is_code_2(inside, tmp_path, options):
    done = inside(*WINE, "--optimizer", "sgd", "--out", tmp_path / "r", *options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert not (tmp_path / "r" / "state").exists()
