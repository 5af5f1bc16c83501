"""LazyTensors: the tensors of a file, each read when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class LazyTensors(Mapping[str, "Tensor"]):
    """name -> tensor, read each time it is asked for and not kept: memory holds one tensor, not one model.

    Args:
        readers: name -> a function of no arguments that reads or computes the tensor.
    """

    def __init__(self, readers: Mapping[str, Callable[[], Tensor]]) -> None:
        self._readers = dict(readers)

    def __getitem__(self, name: str) -> Tensor:
        return self._readers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._readers

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def __repr__(self) -> str:
        return f"LazyTensors({len(self)} tensors)"

    def reader(self, name: str) -> Callable[[], Tensor]:
        """The function that reads one tensor, for a mapping that renames or combines."""
        return self._readers[name]
