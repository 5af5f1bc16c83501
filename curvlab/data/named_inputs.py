"""NamedInputs: examples that a network takes by keyword, one main input and others beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from curvlab.data.dataset import Dataset

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NamedInputs(Dataset):
    """Examples `x` (n, …) of the input that is called `key`, with targets `y` as any dataset has them.

    Attributes:
        key: the keyword of `x`: "input_ids", "pixel_values", "input_features", "input_values".
        beside: further inputs by keyword, each of shape (n, …); `attention_mask` is 0 where padding is.
    """

    key: str = "input_ids"
    beside: Mapping[str, Tensor] = field(default_factory=dict)

    def inputs(self, rows: Tensor | slice) -> Tensor | dict[str, Tensor]:
        """See `Dataset.inputs`: by keyword."""
        return {self.key: self.x[rows], **{key: values[rows] for key, values in self.beside.items()}}

    def at(self, rows: Tensor | slice) -> Self:
        """See `Dataset.at`."""
        return replace(super().at(rows), beside={key: values[rows] for key, values in self.beside.items()})

    def tensors(self) -> tuple[Tensor, ...]:
        """See `Dataset.tensors`."""
        first, *rest = super().tensors()
        return (first, *self.beside.values(), *rest)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        """See `Dataset.mapped`."""
        return replace(super().mapped(change), beside={key: change(values) for key, values in self.beside.items()})
