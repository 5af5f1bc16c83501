"""Run a module when another one has been imported, and not before."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def when_imported(awaited: str, then: str) -> None:
    """Import the module `then` now if `awaited` has been imported, else right after it is."""
    if sys.modules.get(awaited) is not None:
        importlib.import_module(then)
    elif not any(isinstance(finder, _Watch) and finder.awaited == awaited for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch(awaited, then))


class _Watch(MetaPathFinder):
    """Stands before Python's own finders until it is asked for `awaited`, then steps aside."""

    def __init__(self, awaited: str, then: str) -> None:
        self.awaited, self.then = awaited, then

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec that the other finders give, its loader followed by ours; None for any other module."""
        if fullname != self.awaited:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _Followed(spec.loader, self)
        return spec


class _Followed(Loader):
    """The loader of `awaited`; the module `then` is imported when it is done."""

    def __init__(self, own: Loader, watch: _Watch) -> None:
        self.own, self.watch = own, watch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the own loader does."""
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the own loader does, and what waited for it."""
        module.__loader__ = self.own
        if module.__spec__ is not None:
            module.__spec__.loader = self.own
        self.own.exec_module(module)
        if self.watch in sys.meta_path:
            sys.meta_path.remove(self.watch)
        importlib.import_module(self.watch.then)
