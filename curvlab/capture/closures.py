"""Closures: what runs the model and returns the mean loss, without calling backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from curvlab.errors import CurvlabError

Closure = Callable[[], Tensor]


def closure_of(name: str, batch: Any, loss: Callable[..., Tensor] | None) -> Closure:
    """A batch of a warm start as a closure: it is one already, or an item of a loader for which `loss` is given."""
    if loss is None:
        if not callable(batch):
            raise CurvlabError(
                f"{name}: warm_start was given a {type(batch).__name__}",
                "without loss= it takes closures",
                "give loss=",
            )
        closure: Closure = batch
        return closure
    parts = batch if isinstance(batch, tuple | list) else (batch,)
    return lambda: loss(*parts)


def checked_loss(name: str, loss: Any) -> Tensor:
    """The loss, if it is a scalar tensor with a graph; CurvlabError otherwise."""
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise CurvlabError(
            f"{name}: the closure returned {type(loss).__name__}", "it must return the mean loss, a scalar tensor"
        )
    if not loss.requires_grad:
        raise CurvlabError(
            f"{name}: the closure's loss has no graph",
            "nothing can be differentiated",
            "do not call backward in the closure",
        )
    return loss
