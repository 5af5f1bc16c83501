"""Counts what makes the host wait for a device: readings of numbers, and copies between devices."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_READERS = ("tolist", "item", "numpy", "__bool__", "__int__", "__float__", "__index__")


class Readings(TorchDispatchMode):
    """`found`: the operations and methods that read; `copies`: those that move a tensor to another device.

    `tolist` and `numpy` read a CPU tensor's memory without any operation, so the methods are counted as well; what a
    method's own operation does is not counted twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.copies: list[str] = []
        self._inside = 0
        self._kept: dict[str, Any] = {}

    @property
    def count(self) -> int:
        return len(self.found)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if "_local_scalar_dense" in name and not self._inside:
            self.found.append(name)
        if "_to_copy" in name and (kwargs or {}).get("device") not in (None, args[0].device):
            self.copies.append(name)
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> Readings:
        for name in _READERS:
            self._kept[name] = vars(Tensor).get(name)
            setattr(Tensor, name, self._counted(name, getattr(Tensor, name)))
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        for name, before in self._kept.items():
            if before is None:
                delattr(Tensor, name)
            else:
                setattr(Tensor, name, before)

    def _counted(self, name: str, method: Any) -> Any:
        def counted(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.found.append(name)
            self._inside += 1
            try:
                return method(tensor, *args, **kwargs)
            finally:
                self._inside -= 1

        return counted


def test_readings_are_counted_once_each() -> None:
    x = torch.arange(3.0)
    with Readings() as readings:
        x.sum().item()
        x.tolist()
        bool(x.sum() > 1)
        float(x[0])
        torch.where(x > 1, x, -x)
    assert readings.count == 4, readings.found
    assert not readings.copies
    assert x.sum().item() == 3  # nothing stays patched
