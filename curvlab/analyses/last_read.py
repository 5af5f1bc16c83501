"""Tensors of a file of which the last one read is kept: the matrices of its experts are asked for one by one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from torch import Tensor


class LastRead(Mapping[str, Tensor]):
    """`tensors`, the last of those in `kept` in memory until the next of them is asked for.

    Args:
        tensors: by name; reading one may mean reading a file.
        kept: names of the tensors of which parts are read one after another.
    """

    def __init__(self, tensors: Mapping[str, Tensor], kept: Collection[str]) -> None:
        self._tensors, self._kept = tensors, frozenset(kept)
        self._last: tuple[str, Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._kept:
            return self._tensors[name]
        if self._last is None or self._last[0] != name:
            self._last = None  # before the next one is read: memory holds one
            self._last = name, self._tensors[name]
        return self._last[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
