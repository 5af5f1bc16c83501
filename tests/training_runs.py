"""Small training runs that several tests make, and what of them must agree."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from curvlab.training.result import TrainingResult
from curvlab.training.run import Run
from curvlab.training.train import Start, train

CLOCKS = ("seconds", "memory", "device_memory")
"""What two runs alike need not agree in."""


def trained(
    out: Path, *, resume: bool = False, force: bool = False, trust: bool = False, **values: Any
) -> TrainingResult:
    """A run on the wines, 5 steps an epoch, unless `values` say otherwise."""
    given = {"out": str(out), **values}
    if not resume and "architecture" not in given:
        given.setdefault("problem", "wine-mlp")
    return train(given, Start(resume, force, trust=trust), note=lambda _: None)


def entries(out: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def left_behind(out: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """The model's bytes and the metrics without clocks: what does not depend on when it was computed."""
    lines = [{key: value for key, value in entry.items() if key not in CLOCKS} for entry in entries(out)]
    return (out / "model.safetensors").read_bytes(), lines


def stop_at(monkeypatch, step, number=signal.SIGINT):
    """A signal in the middle of the step after `step`."""
    take = Run.take_step

    def interrupted(run, x, y):
        if run.step == step:
            os.kill(os.getpid(), number)
        take(run, x, y)

    monkeypatch.setattr(Run, "take_step", interrupted)
