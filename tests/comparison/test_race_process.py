"""Runs in processes of their own: the same numbers, memory of their own, and deaths that are sentences."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from curvlab.comparison.race import race
from curvlab.comparison.race_process import COMMAND, run_apart
from curvlab.comparison.race_settings import RaceSettings
from curvlab.training.settings import TrainingSettings

SETTINGS = TrainingSettings(optimizer="sgd", problem="wine-mlp", steps=1, seed=5, threads=1)


def dying(code, seen=lambda *_: None):
    """A run whose process is this program."""
    return run_apart(SETTINGS, None, seen, (sys.executable, "-S", "-c", code))


def test_a_fresh_process_gives_the_same_losses_and_its_own_memory():
    settings = {"problems": ("wine-mlp",), "seeds": (0,), "steps": 6, "threads": 1, "target": "train.loss<9"}
    alone = race(RaceSettings(optimizers={"adam": {}}, **settings)).races[0].entrants
    # Another order and another company, in this process.
    together = (
        race(RaceSettings(optimizers={"kfac": {}, "adam": {}}, fresh_process=False, **settings)).races[0].entrants
    )
    apart, here = alone["adam"].runs[0], together["adam"].runs[0]
    assert apart.failed is None
    assert (apart.loss, apart.test_loss, apart.steps) == (here.loss, here.test_loss, here.steps)
    assert (apart.hashes, apart.metrics, apart.state_bytes) == (here.hashes, here.metrics, here.state_bytes)
    assert 10**7 < apart.memory_before <= apart.peak_memory < 10**10
    assert apart.time_to_target == 0


def test_what_cannot_be_begun_is_said_in_the_words_of_the_error():
    settings = TrainingSettings(optimizer="sgd", problem="mnist-autoencoder", data="wine", steps=1)
    run = run_apart(settings, None, lambda *_: None)
    assert run.failed is not None
    assert run.failed.endswith("holds 178 examples: 1000 of them are to be held out")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL, perhaps for lack of memory"),
        ("import sys; sys.exit('out\\x1b[31m of luck')", r"code 1: out\x1b[31m of luck"),
        ("raise ValueError('no')", "code 1: ValueError: no"),
        ("print('{\"run\": ', end='')", "code 0"),
        ("pass", "code 0"),
    ],
)
def test_a_death_is_a_sentence(code, sentence):
    run = dying(code)
    assert run.seed == 5
    assert run.lost
    assert run.failed.startswith("its process ")
    assert sentence in run.failed


def test_progress_comes_through():
    seen = []
    line = json.dumps({"stage": "training steps", "done": 3, "total": 9})
    dying(f"print({line!r})", lambda *progress: seen.append(progress))
    assert seen == [("training steps", 3, 9)]


def test_an_interrupted_race_leaves_no_process():
    def interrupted(*_):
        raise KeyboardInterrupt

    line = json.dumps({"stage": "training steps", "done": 1, "total": 9})
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        dying(f"import time; print({line!r}, flush=True); time.sleep(60)", interrupted)
    assert time.monotonic() - start < 30, "the process was waited for"


def test_a_process_ends_when_nobody_waits_any_more():
    """Its parent was killed: the pipe closes, in the middle of a race that would take for ever."""
    request = {"settings": {**SETTINGS.to_dict(), "steps": 10**9}, "training_seconds": 10**6}
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
        assert json.loads(child.stdout.readline())["stage"] == "training steps"
        child.stdin.close()
        assert child.wait(timeout=30) == 1
