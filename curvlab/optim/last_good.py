"""`LastGood`: the last good inverse of every block, and how often in a row a new one failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from curvlab.errors import NumericalError

LIMIT = 4
"""So many failures in a row are an error (docs/curvature.md)."""

T = TypeVar("T")


@dataclass(frozen=True)
class Kept(Generic[T]):
    """The last good value of one block (None if there never was one), the step it is from, and the failures since."""

    value: T | None
    step: int | None
    failures: int


class LastGood(Generic[T]):
    """Good values by block name, in `blocks`: plain data to save and to set again.

    Example:
        >>> inverses = LastGood()
        >>> inverses.update("fc1", step=20, fresh=None, reason=lambda: "it has condition number 1e+20")
        >>> inverses.blocks["fc1"].failures
        1
    """

    def __init__(self) -> None:
        self.blocks: dict[str, Kept[T]] = {}

    def update(self, block: str, step: int, fresh: T | None, reason: Callable[[], str]) -> T | None:
        """The value to use from now on: `fresh`, or where that failed (None) the last good one, or None without one.

        Args:
            reason: in words ("a factor of size 20 has condition number 1e+20"), asked for only when there is an error.

        Raises:
            NumericalError: the fourth failure in a row.
        """
        if fresh is not None:
            self.blocks[block] = Kept(fresh, step, 0)
            return fresh
        last = self.blocks.get(block, Kept(None, None, 0))
        self.blocks[block] = Kept(last.value, last.step, last.failures + 1)
        if last.failures + 1 >= LIMIT:
            raise NumericalError(
                f"the inverse of block {block!r} failed {last.failures + 1} times in a row, at step {step} again",
                reason(),
                "raise the damping, lower the learning rate or use float64",
            )
        return last.value
