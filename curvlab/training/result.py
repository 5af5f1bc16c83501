"""TrainingResult: what a training run came to, frozen; `summary.json` is its form for programs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from curvlab.document.json import plain

Status = Literal["finished", "target-met", "diverged", "interrupted", "out-of-time"]
SCHEMA = "curvlab.training/1"


@dataclass(frozen=True)
class TrainingResult:
    """One run, or what there is of it when it ended early.

    Attributes:
        status: how it ended.
        reason: one sentence for a run that diverged, else None.
        problem: {"name", "data", "spec", "likelihood", "train_examples", "test_examples", "fingerprint"}: what the data
            is, how --data calls it, and a sha256 of the examples in their order.
        model: {"path", "step", "parameters", "sha256", "self_contained", "data"}: the step that the file is of (for a
            run that diverged the last that was saved), whether loading it needs no code, and the dataset that it
            names, or None.
        optimizer: its name.
        settings: those of `TrainingSettings` as they were used, the optimizer's complete under "settings".
        steps: taken in all.
        epochs: passes over the training set, a fraction when the last was not complete.
        evaluated: the step of the evaluation that `train` and `test` are of; None before the first.
        train: {"loss", metrics} over the whole training set.
        test: the same over the examples held out.
        best: {"step", "epoch", "test"} of the evaluation with the smallest test loss.
        seconds: {"train", "warm_start", "evaluation", "saving", "total"}; train holds warm_start.
        target: {"expression", "met"}; None when there was none.
        gates: {"expression", "holds", "evidence"} for each of `fail_if`.
        skipped: steps not taken because the gradient was not finite.
        failures: block -> inverses that failed in a row, where there were any at the end.
        counters: what the optimizer counted (the pairs of K-BFGS); empty for one that counts nothing.
        coverage: how parameters are treated -> how many numbers are.
        memory: {"peak", "device_peak", "state"}: bytes of the process, of CUDA's allocator, of the optimizer's state.
        seed: of everything random.
        environment: versions and machine.
        command: the command line.
        folder: where the files are.
        notes: sentences for the user.
    """

    status: Status
    reason: str | None
    problem: Mapping[str, Any]
    model: Mapping[str, Any]
    optimizer: str
    settings: Mapping[str, Any]
    steps: int
    epochs: float
    evaluated: int | None
    train: Mapping[str, float] | None
    test: Mapping[str, float] | None
    best: Mapping[str, Any] | None
    seconds: Mapping[str, float]
    target: Mapping[str, Any] | None
    skipped: int
    failures: Mapping[str, int]
    coverage: Mapping[str, int]
    memory: Mapping[str, int | None]
    seed: int
    environment: Mapping[str, Any]
    command: tuple[str, ...]
    folder: Path
    notes: tuple[str, ...] = ()
    gates: tuple[Mapping[str, Any], ...] = ()
    counters: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The contract `curvlab.training/1`; numbers that do not exist are None."""
        return {"schema": SCHEMA, "curvlab": importlib.metadata.version("curvlab"), **plain(self)}
