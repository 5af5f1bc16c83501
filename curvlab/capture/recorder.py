"""Recorder: what is done with the maps that a forward pass runs through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from curvlab.capture.sample import Call


@runtime_checkable
class Recorder(Protocol):
    """What a tape does with what is seen here."""

    def show(self, name: str, call: Call) -> None:
        """A map has run."""

    def send(self, name: str, call: Call, gradient: Tensor) -> None:
        """The gradient at its output is known."""

    def tap(self, output: Tensor, sink: Callable[[Tensor], None]) -> Tensor:
        """The output to go on with; its gradient will be shown to `sink`."""

    def refuse(self, name: str, why: str) -> None:
        """A parameter is used in a way that is not known."""
