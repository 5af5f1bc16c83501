"""What a closure calls its model with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import nn

from curvlab.capture.model_inputs import batch_size
from curvlab.errors import CurvlabError

Note = Callable[[tuple[Any, ...], dict[str, Any]], None]
"""Takes the positional and the keyword arguments of a call."""


@contextmanager
def at_calls(model: nn.Module, note: Note) -> Iterator[None]:
    """Inside, `note` is told of every call of the model just before it runs.

    At the first batch a recorder finds the model's layers by a small forward of its own, which comes first: the last
    call is the closure's.
    """
    handle = model.register_forward_pre_hook(lambda _, args, kwargs: note(args, kwargs), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


class CountedExamples:
    """The number of examples of all calls of a model; a `Note`.

    Attributes:
        examples: so far. A call without a tensor counts for nothing.
    """

    def __init__(self) -> None:
        self.examples = 0

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """One more call."""
        with suppress(CurvlabError):
            self.examples += batch_size(args or kwargs)
