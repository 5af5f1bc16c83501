"""NamedInputs: examples that a network takes by keyword, one main input and others beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

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

    def _rows(self, rows: Tensor, note: str) -> NamedInputs:
        made = super()._rows(rows, note)
        return replace(self, x=made.x, y=made.y, notes=made.notes, beside={k: v[rows] for k, v in self.beside.items()})
