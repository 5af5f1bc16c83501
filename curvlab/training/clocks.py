"""Clocks of a run: seconds of training (the warm start included), warm start, evaluation and saving, apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

NAMES = ("train", "warm_start", "evaluation", "saving")


class Clocks:
    """Seconds by activity; within `measure(other)` the activity around it stands still.

    Args:
        before: seconds of an earlier part of the run.
        synchronize: waits until the device has done what it was asked, so that its work is counted where it belongs.
        now: the time in seconds.
    """

    def __init__(
        self,
        before: Mapping[str, float] | None = None,
        synchronize: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._spent = dict.fromkeys(NAMES, 0.0) | dict(before or {})
        self._spent["train"] -= self._spent["warm_start"]  # inside, each second is counted once
        self._synchronize, self._now = synchronize, now
        self._current: str | None = None
        self._since = now()

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Everything in the block counts as `name`."""
        outer = self._current
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def seconds(self) -> dict[str, float]:
        """Seconds so far by name."""
        self._switch(self._current)
        return {**self._spent, "train": self._spent["train"] + self._spent["warm_start"]}

    def _switch(self, name: str | None) -> None:
        self._synchronize()
        now = self._now()
        if self._current is not None:
            self._spent[self._current] += now - self._since
        self._current, self._since = name, now
