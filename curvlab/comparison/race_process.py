"""A run in a process of its own: its memory is then its own, and its crash is a sentence, not the end of the race."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

from curvlab.comparison.race_run import RaceRun
from curvlab.quoting import escaped
from curvlab.reproducible import reproducible
from curvlab.training.loop import Report
from curvlab.training.settings import TrainingSettings

# -P: a file of the user's that is called like a library must not be imported for it.
COMMAND = (sys.executable, "-P", "-m", "curvlab.comparison.race_child")


def run_apart(
    settings: TrainingSettings, training_seconds: float | None, report: Report, command: Sequence[str] = COMMAND
) -> RaceRun:
    """`run_once` in a fresh process; whatever ends that process otherwise is in `failed`.

    Args:
        settings: see `run_once`.
        training_seconds: see `run_once`.
        report: told the steps taken, some times a second.
        command: that starts the process.
    """
    request = json.dumps({"settings": settings.to_dict(), "training_seconds": training_seconds})
    answer: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=reproducible({**os.environ})
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with suppress(BrokenPipeError):  # it has died already: the code it left says how
                child.stdin.write(request.encode() + b"\n")
                child.stdin.flush()
            for line in child.stdout:
                # A line without an end was cut off by the process's own.
                answer = json.loads(line) if line.endswith(b"\n") else {}
                if "stage" in answer:
                    report(answer["stage"], answer["done"], answer["total"])
            code = child.wait()
        except BaseException:
            child.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                child.stdin.close()
        if "run" in answer:
            return RaceRun.read(answer["run"])
        return RaceRun(settings.seed, failed=answer.get("failed") or _ending(code, errors))


def _ending(code: int, errors: IO[bytes]) -> str:
    """One sentence on a process that gave no answer."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    errors.seek(0)
    lines = errors.read().decode("utf-8", errors="replace").strip().splitlines()
    return f"its process ended with code {code}" + (f": {escaped(lines[-1])}" if lines else "")
