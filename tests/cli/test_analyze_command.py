"""`curvlab analyze`: what comes out where, and with which exit code."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from commands import FULL, WEIGHTS


def test_a_full_profile_goes_to_the_table_the_json_and_the_csv(full_run, folder):
    document = json.loads((folder / "full.json").read_text())
    rows = list(csv.DictReader((folder / "full.csv").read_text().splitlines()))
    assert [layer["name"] for layer in document["layers"]] == [row["name"] for row in rows] == ["1", "3"]
    assert document["schema"] == "curvlab.analysis/1"
    assert document["command"][:3] == ["curvlab", "analyze", "model.safetensors"]
    assert document["data"]["samples"] == 60
    assert not document["data"]["synthetic"]
    assert document["model"]["parameters"] == document["coverage"]["parameters"] == 64 * 12 + 12 + 12 * 10 + 10
    for layer, row in zip(document["layers"], rows, strict=True):
        assert row["kfac.kronecker.trace"] == str(layer["kfac"]["kronecker"]["trace"])
        assert layer["moments"]["count"] == 60
    for title in ("Weights", "Input features", "Curvature factors", "coverage: 910 of 910"):
        assert title in full_run.stdout
    assert max(map(len, full_run.stdout.splitlines())) <= 100


def test_a_gate_that_holds_is_code_3_and_says_which_layer(full_run):
    assert full_run.returncode == 3
    lines = [line for line in full_run.stderr.splitlines() if "gate" in line]
    assert lines == ["curvlab: gate 'any.weights.rank > 11' holds: 1: 12 > 11"]


def test_nothing_but_the_result_is_on_stdout(full_run):
    assert "curvlab: statistics" in full_run.stderr
    assert "curvlab:" not in full_run.stdout
    assert "\x1b" not in full_run.stdout + full_run.stderr


def test_json_on_stdout_is_alone_there_and_repeats(process, full_run, folder):
    assert full_run.returncode == 3
    run = process(*FULL, "--json", "-")
    assert run.returncode == 0
    document, earlier = json.loads(run.stdout), json.loads((folder / "full.json").read_text())
    assert document["layers"] == earlier["layers"]
    assert "statistics" in run.stderr


def test_csv_on_stdout_is_alone_there(inside, tmp_path):
    run = inside(*WEIGHTS, "--csv", "-", "--json", tmp_path / "a.json", "--layers", "3")
    assert run.returncode == 0
    assert [row["name"] for row in csv.DictReader(run.stdout.splitlines())] == ["3"]
    assert [layer["name"] for layer in json.loads((tmp_path / "a.json").read_text())["layers"]] == ["3"]


def test_markdown_is_the_whole_report_and_links_its_pictures(inside, folder):
    run = inside(*WEIGHTS, "--markdown", "-", "--json", "markdown.json")
    assert run.stdout.startswith("# Analysis of model.safetensors\n\n- **model:** ")
    assert "| 1 | " in run.stdout
    run = inside(*WEIGHTS, "--markdown", "report.md", "--plots", "pictures")
    assert "stable rank" in run.stdout
    assert "](<pictures/condition-numbers.svg>)" in (folder / "report.md").read_text()
    assert (folder / "pictures" / "condition-numbers.svg").exists()


def test_weights_alone_say_what_would_give_more(inside):
    run = inside(*WEIGHTS)
    assert run.returncode == 0
    assert "stable rank" in run.stdout
    assert "--architecture" in run.stdout


def test_a_dry_run_computes_nothing(inside):
    run = inside(*FULL, "--dry-run", "--json", "-")
    assert run.returncode == 0
    document = json.loads(run.stdout)
    assert document["schema"] == "curvlab.estimate/1"
    assert [(b["input_size"], b["output_size"]) for b in document["blocks"]] == [(65, 12), (13, 10)]
    assert "statistics" not in run.stderr


def test_synthetic_data_is_called_so_everywhere(inside, tmp_path):
    options = ("--data", "gaussian", "--samples", "16", "--analyses", "moments")
    run = inside(*WEIGHTS, "--architecture", "mynet:build", *options, "--json", tmp_path / "a.json")
    assert run.returncode == 0, run.stderr
    assert "SYNTHETIC" in run.stdout
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["data"]["synthetic"] is True
    assert document["layers"][0]["kfac"] is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("analyze", "gone.safetensors"), "gone.safetensors"),
        ((*WEIGHTS, "--architecture", "mynet:build", "--data", "digit"), "did you mean 'digits'"),
        ((*WEIGHTS, "--analyses", "kfac"), "--architecture"),
        ((*WEIGHTS, "--architecture", "nothing_here:build"), "nothing_here"),
    ],
    ids=["no file", "no data", "no network", "no module"],
)
def test_work_that_fails_is_one_sentence_and_code_1(inside, arguments, sentence):
    run = inside(*arguments)
    assert run.returncode == 1
    assert run.stdout == ""
    said = [line for line in run.stderr.splitlines() if line != "curvlab: reading the model"]
    assert len(said) == 1
    assert said[0].startswith("curvlab: ")
    assert sentence in said[0]
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--loss", "hinge"),
        ("--samples", "0"),
        ("--nonsense",),
        ("--analyses", "weights,spectra"),
        ("--max-memory", "lots"),
        ("--fail-if", "1 +"),
        ("--fail-if", "coverage.analyzed < 1", "--dry-run"),
        ("--json", "-", "--csv", "-"),
        ("--markdown", "-", "--csv", "-"),
        ("--markdown", "missing/folder/a.md"),
        ("--markdown", "a.md", "--dry-run"),
        ("--plots", "pictures", "--dry-run"),
        ("--json", "missing/folder/a.json"),
        ("--csv", "."),
        ("--sort", "colour"),
        ("second.safetensors",),
        # What would have no effect.
        ("--data", "gaussian", "--analyses", "moments", "--loss", "mse"),
        ("--data", "gaussian", "--analyses", "kfac", "--statistic", "batch"),
        ("--data", "gaussian", "--fisher-type", "empirical", "--mc-samples", "2"),
        ("--data", "gaussian", "--fisher-type", "forward-only", "--statistic", "batch"),
        ("--sort", "name", "--json", "-"),
        ("--all", "--json", "-"),
        ("--all", "--dry-run"),
        ("--sort", "name", "--dry-run"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_code_2_before_any_work(inside, options):
    run = inside(*WEIGHTS, *options)
    assert run.returncode == 2
    assert run.stdout == ""
    assert "reading the model" not in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--samples", "3"),
        ("--fisher-type", "empirical"),
        ("--dtype", "float64"),
        ("--data", "gaussian", "--analyses", "weights"),
    ],
    ids=" ".join,
)
def test_an_option_about_data_that_is_not_used_is_code_2(inside, options):
    run = inside(*WEIGHTS, *options)
    assert run.returncode == 2
    assert run.stdout == ""
    assert len([line for line in run.stderr.splitlines() if "reading the model" not in line]) == 1


def test_a_gate_on_a_number_that_is_not_there_is_code_2_after_the_result(inside):
    run = inside(*WEIGHTS, "--json", "-", "--fail-if", "1.kfac.pi > 1")
    assert run.returncode == 2
    assert json.loads(run.stdout)["layers"]
    assert "cannot be decided" in run.stderr


def test_an_interrupt_is_code_130_and_quiet(folder):
    (folder / "slow.py").write_text(
        "import pathlib, time\ndef build():\n    pathlib.Path('begun').touch()\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-m", "curvlab_cli", *WEIGHTS, "--architecture", "slow:build"]
    started = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests themselves run in the background, interrupts are ignored, and children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not (folder / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=30)
    assert started.returncode == 130
    assert "Traceback" not in said


def test_a_reader_that_leaves_early_changes_nothing_else(process, folder):
    read, write = os.pipe()
    os.close(read)
    run = process(*WEIGHTS, "--json", "early.json", "--fail-if", "any.weights.rank > 11", stdout=write)
    os.close(write)
    assert run.returncode == 3
    assert json.loads((folder / "early.json").read_text())["layers"]
    assert "Traceback" not in run.stderr
    assert "BrokenPipe" not in run.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")  # noqa: PTH110
def test_a_full_disk_is_one_sentence(process):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        run = process(*WEIGHTS, stdout=full)
    assert run.returncode == 1
    assert "cannot be written to stdout: No space left on device" in run.stderr
    assert "Traceback" not in run.stderr


def test_debug_gives_the_traceback_and_the_sentence(process):
    run = process("analyze", "gone.safetensors", env={"CURVLAB_DEBUG": "1"})
    assert run.returncode == 1
    assert "Traceback (most recent call last)" in run.stderr
    assert "curvlab: " in run.stderr.splitlines()[-1]
