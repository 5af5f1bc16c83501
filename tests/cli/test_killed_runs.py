"""Runs of `curvlab train` that a signal ends: Ctrl-C, kill -9 in a step, kill -9 from outside; and how they go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import copies
import pytest
from training_runs import entries, left_behind

WINE = ("train", "--problem", "wine-mlp")

KILLED = """
import os, sys
from curvlab.training.run import Run
from curvlab_cli.main import run
take = Run.take_step
def step(self, x, y):
    if self.step == {step}:
        os.kill(os.getpid(), {signal})
    take(self, x, y)
Run.take_step = step
sys.argv = ["curvlab", *sys.argv[1:]]
run()
"""
"""The command line, in which a signal arrives in the middle of a step."""


@pytest.fixture
def killed(folder):
    """A process that gets a signal of its own, finished."""

    def start(number, step, *arguments):
        code = KILLED.format(step=step, signal=int(number))
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return copies.run("-c", code, *map(str, arguments), cwd=folder, env=environment)

    return start


@pytest.mark.parametrize("optimizer", ["sgd", "kfac", "tnt"])
def test_a_run_killed_in_the_middle_goes_on_bit_for_bit(inside, killed, tmp_path, optimizer):
    options = (*WINE, "--optimizer", optimizer, "--epochs", 4)
    assert inside(*options, "--out", tmp_path / "one").returncode == 0
    dead = killed(signal.SIGKILL, 13, *options, "--out", tmp_path / "two")
    assert dead.returncode == -signal.SIGKILL
    assert [entry["step"] for entry in entries(tmp_path / "two")] == [5, 10]
    assert not (tmp_path / "two" / "summary.json").exists()
    run = inside("train", "--resume", "--out", tmp_path / "two")
    assert run.returncode == 0
    assert "going on after step 10" in run.stderr
    assert left_behind(tmp_path / "two") == left_behind(tmp_path / "one")


def test_a_run_killed_from_outside_goes_on_bit_for_bit(folder, inside, tmp_path):
    options = (*WINE, "--optimizer", "kfac", "--epochs", "25")
    command = [sys.executable, "-m", "curvlab_cli", *options, "--out", str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    victim = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log, until = tmp_path / "two" / "metrics.jsonl", time.monotonic() + 120  # importing torch takes a busy machine long
    while time.monotonic() < until and not (log.exists() and log.read_text().count("\n") > 3):
        time.sleep(0.005)
    victim.kill()
    victim.wait(10)
    assert log.read_text().count("\n") > 3
    assert inside("train", "--resume", "--out", tmp_path / "two").returncode == 0
    assert inside(*options, "--out", tmp_path / "one").returncode == 0
    assert left_behind(tmp_path / "two") == left_behind(tmp_path / "one")


def test_ctrl_c_saves_and_says_how_to_go_on(inside, killed, tmp_path):
    options = (*WINE, "--optimizer", "tnt", "--epochs", 4, "--log-every", 2)
    run = killed(signal.SIGINT, 7, *options, "--out", tmp_path / "two")
    assert run.returncode == 130
    assert "interrupted after step 8" in run.stderr
    assert f"curvlab train --resume --out {tmp_path / 'two'}" in run.stderr
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["status"] == "interrupted"
    assert "interrupted after 8 steps, 1.60 epochs" in run.stdout
    assert inside(*options, "--resume", "--out", tmp_path / "two").returncode == 0
    assert inside(*options, "--out", tmp_path / "one").returncode == 0
    assert left_behind(tmp_path / "two") == left_behind(tmp_path / "one")
