"""Dataset: examples with, where known, their targets, where they came from, and what was done to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Examples in memory, in a fixed order.

    Attributes:
        name: short name: the dataset's, or the file's.
        x: inputs, examples first: (n, ...).
        y: targets, (n, ...), or None when there are none.
        source: where it came from, for a person.
        synthetic: True when no measurement of the world is in it (random inputs); every report says so.
        task: "classification", "regression", or None when the targets do not tell.
        notes: what was converted on the way, one sentence each.
        classes: names of the classes 0, 1, …, where the source has names for them.
    """

    name: str
    x: Tensor
    y: Tensor | None
    source: str
    synthetic: bool = False
    task: str | None = None
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def inputs(self, rows: Tensor | slice) -> Tensor | dict[str, Tensor]:
        """What a network is called with for these examples."""
        return self.x[rows]

    def at(self, rows: Tensor | slice) -> Self:
        """These examples alone."""
        return replace(self, x=self.x[rows], y=None if self.y is None else self.y[rows])

    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors: inputs, then targets."""
        return (self.x,) if self.y is None else (self.x, self.y)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same examples with other tensors: on another device, of another type."""
        return replace(self, x=change(self.x), y=None if self.y is None else change(self.y))

    def take(self, samples: int | None, seed: int = 0) -> Dataset:
        """The `drawn` examples; everything when `samples` is None or not fewer than there are."""
        if samples is None or samples >= len(self):
            return self
        return self._rows(drawn(len(self), samples, seed), drawn_note(len(self), samples, seed))

    def shuffled(self, seed: int = 0) -> Dataset:
        """All examples in an order drawn by `seed`, for sources that are sorted by class."""
        import torch

        rows = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self._rows(rows, f"sorted by class in the source: shuffled with seed {seed}")

    def _rows(self, rows: Tensor, note: str) -> Self:
        return replace(self.at(rows), notes=(*self.notes, note))


def drawn(count: int, samples: int, seed: int) -> Tensor:
    """`samples` of the places 0 to count - 1, drawn without replacement by `seed`, in rising order."""
    import torch

    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[:samples].sort().values


def drawn_note(count: int, samples: int, seed: int) -> str:
    """The sentence that says so."""
    return f"{samples} of {count} examples were drawn with seed {seed}"


def task_of(y: Tensor | None) -> str | None:
    """What targets are for: whole numbers name classes, floats are regressed on, and None says nothing."""
    if y is None:
        return None
    return "regression" if y.is_floating_point() else "classification"
