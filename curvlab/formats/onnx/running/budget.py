"""Budget: the limits on what running an untrusted graph may cost, checked before each step.

A few bytes of ONNX can ask for terabytes (ConstantOfShape, Expand, Tile, a convolution padded by millions). Every torch
operation is first done on tensors without memory, which gives the size of its result; only then is it done for good.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from curvlab.errors import CurvlabError


class TooMuch(CurvlabError):  # noqa: N818 - it becomes a reason or a refusal, depending on what was asked for
    """A graph that needs more memory or time than it may have."""


class Budget(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, operations run only if what is held and what they make fits into `memory`, and `seconds` are not over.

    Args:
        memory: bytes, of the values held and the next result together.
        seconds: of this thread's own computing time, which other programs do not use up.
        work: floating-point operations of products and convolutions.

    Attributes:
        values: what is held now; the network puts its own dictionary here while it runs.
        spent: floating-point operations so far.
    """

    def __init__(self, memory: int, seconds: float = 5.0, work: float = 2e11) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.memory, self.work, self.spent = memory, work, 0.0
        self.deadline = time.thread_time() + seconds
        self.values: Mapping[str, Tensor] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled in here; to be told so, torch would import its compiler, which takes seconds.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Foresee the operation, then do it."""
        kwargs = kwargs or {}
        if time.thread_time() > self.deadline:
            raise TooMuch("the graph takes too long to be tried")
        if not _is_view(func):
            self._foresee(func, args, kwargs)
        return func(*args, **kwargs)

    def _foresee(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # What these make is as large as their operands together are broad; torch would import its compiler to say so.
        normalises = "norm" in func.__name__
        if normalises or torch.Tag.pointwise in func.tags:
            operands = args[:1] if normalises else (args, kwargs)
            shapes = [part.shape for part in tree_leaves(operands) if isinstance(part, Tensor)]
            shape: tuple[int, ...] = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
            self._hold(prod(shape) * 8)
            return
        try:
            shown = tree_map(_weightless, args), tree_map(_weightless, kwargs)
            if "device" in shown[1]:
                shown[1]["device"] = torch.device("meta")
            with torch.utils._python_dispatch._disable_current_modes():
                result = func(*shown[0], **shown[1])
        except (NotImplementedError, RuntimeError):
            # Results that depend on the values (which elements are not 0) are no larger than what they are made of;
            # and what cannot be foreseen because it is wrong will say so itself.
            return
        self._hold(sum(part.numel() * part.element_size() for part in tree_leaves(result) if isinstance(part, Tensor)))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.spent += count(*shown[0], **shown[1], out_val=result)
            if self.spent > self.work:
                raise TooMuch("the graph takes too long to be tried")

    def _hold(self, needed: int) -> None:
        held = _bytes(self.values.values())
        if needed + held > self.memory:
            raise TooMuch(f"the graph asks for {needed + held} bytes at once", f"it may use {self.memory}")


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(part.alias_info is not None for part in returns)


def _weightless(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) and value.dim() else value


def _bytes(values: Iterable[Tensor]) -> int:
    storages = {}
    for value in values:
        storage = value.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
