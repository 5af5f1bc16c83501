"""LivePeak: the most bytes of tensors that were alive at once while something ran."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LivePeak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """`with LivePeak(known) as live: ...` counts the storages of all results of operations, backward ones too.

    Args:
        known: tensors that are there before, such as parameters; they do not count, nor do their views.

    Attributes:
        live: bytes now.
        peak: most bytes so far.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known = {one.untyped_storage()._cdata for one in known}
        self._held: dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run `func`, and count what it returns."""
        found = func(*args, **(kwargs or {}))
        for one in tree_leaves(found):
            if isinstance(one, Tensor):
                self._count(one)
        return found

    def _count(self, tensor: Tensor) -> None:
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):  # sparse, and others of no storage of their own
            return
        key = storage._cdata
        if key in self._known or key in self._held:
            return
        size = storage.nbytes()

        def gone(_: Any) -> None:
            if self._held.pop(key, None) is not None:
                self.live -= size

        self._held[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)
