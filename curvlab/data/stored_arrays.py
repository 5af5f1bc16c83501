"""Arrays that are still in a file: headers say shapes and types, numbers are read for the rows that are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from curvlab.data.budget import within
from curvlab.data.dataset import Dataset, drawn, drawn_note
from curvlab.data.pairs import check_shapes, paired, roles

if TYPE_CHECKING:
    from torch import Tensor


class Draw(NamedTuple):
    """Which examples are read: `samples` of them drawn by `seed`, in their order; all when `samples` is None."""

    samples: int | None = None
    seed: int = 0

    def rows(self, count: int) -> Tensor | None:
        """The rows of `count` that are read, rising; None when that is all of them."""
        return None if self.samples is None or self.samples >= count else drawn(count, self.samples, self.seed)

    def noted(self, found: Dataset, count: int) -> Dataset:
        """`found`, read from a file of `count` examples, with the sentence that says so."""
        if self.rows(count) is None:
            return found
        return replace(found, notes=(*found.notes, drawn_note(count, len(found), self.seed)))


@dataclass(frozen=True)
class StoredArray:
    """One array in a file.

    Attributes:
        shape: (n, ...), as the header says.
        floating: whether its numbers are real.
        itemsize: bytes that a number takes once it is read.
        read: given rising rows, or None for all, the numbers.
    """

    shape: tuple[int, ...]
    floating: bool
    itemsize: int
    read: Callable[[Tensor | None], Tensor]

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    def is_floating_point(self) -> bool:
        """Whether its numbers are real, as a tensor would say."""
        return self.floating


def gathered(stored: Mapping[str, StoredArray], name: str, source: str, draw: Draw, max_memory: int | None) -> Dataset:
    """The dataset in a file's arrays: of those that are used, the rows that are drawn, and nothing else, is read.

    Raises:
        DataError: the arrays are no inputs and targets (`pairs`).
        MemoryBudgetError: what would be read does not fit into `max_memory`.
    """
    chosen = roles(stored, source)
    x, y = stored[chosen.x], None if chosen.y is None else stored[chosen.y]
    check_shapes(x.shape, None if y is None else y.shape, source)
    rows = draw.rows(x.shape[0])
    used = {key: stored[key] for key in (chosen.x, chosen.y, *chosen.beside) if key is not None}
    # What does not pair up is read as a whole, and refused with a sentence of its own.
    wanted = {key: rows if one.shape[:1] == x.shape[:1] else None for key, one in used.items()}
    within(sum(_bytes(one, wanted[key]) for key, one in used.items()), max_memory, source)
    found = paired({key: one.read(wanted[key]) for key, one in used.items()}, chosen, name, source)
    return draw.noted(found, x.shape[0])


def _bytes(array: StoredArray, rows: Tensor | None) -> int:
    count = array.shape[0] if rows is None and array.shape else 1 if rows is None else len(rows)
    return count * math.prod(array.shape[1:]) * array.itemsize
