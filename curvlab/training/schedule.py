"""Schedules of the rate: α_t = α₀ · f(t/T), T the steps of the run: constant, cosine, linear, or by steps."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from curvlab.errors import CommandError

KINDS = ("constant", "cosine", "linear", "step:EPOCHS:FACTOR")


@dataclass(frozen=True)
class Schedule:
    """f: 1; ½(1 + cos πt/T); 1 − t/T; or `factor`^⌊epoch/`epochs`⌋."""

    kind: str
    epochs: int = 1
    factor: float = 1.0

    @property
    def knows_the_end(self) -> bool:
        """Whether it depends on T, so that a run cannot be made longer without being another run."""
        return self.kind in ("cosine", "linear")

    def at(self, step: int, total: int, per_epoch: int) -> float:
        """f after `step` steps of `total`, with `per_epoch` of them an epoch."""
        if self.kind == "cosine":
            return (1 + math.cos(math.pi * min(1.0, step / total))) / 2
        if self.kind == "linear":
            return max(0.0, 1 - step / total)
        if self.kind == "step":
            return float(self.factor ** (step // per_epoch // self.epochs))
        return 1.0


def schedule_problem(text: str) -> str | None:
    """What a schedule must be, where `text` writes none; None where it does."""
    found = _scheduled(text)
    return None if found is not None else f"one of {', '.join(KINDS)} (0 < FACTOR ≤ 1)"


def parse_schedule(text: str) -> Schedule:
    """The schedule that `text` writes, such as `cosine` or `step:30:0.1`.

    Raises:
        CommandError: it is not one of `KINDS`.
    """
    found = _scheduled(text)
    if found is None:
        raise CommandError(f"schedule is '{text}', not {schedule_problem(text)}")
    return found


def _scheduled(text: str) -> Schedule | None:
    if text in ("constant", "cosine", "linear"):
        return Schedule(text)
    match = re.fullmatch(r"step:([1-9]\d{0,8}):(\d*\.?\d+(?:[eE][+-]?\d+)?)", text, re.ASCII)
    if match is None or not 0 < float(match[2]) <= 1:
        return None
    return Schedule("step", int(match[1]), float(match[2]))
