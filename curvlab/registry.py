"""Registry: things by name, which modules register when they are imported; a package's by its entry points."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from curvlab.errors import CommandError
from curvlab.plugins import Plugin, load

T = TypeVar("T")
_CALL = re.compile(r"^@?(\w+\.)?register\b", re.MULTILINE)
"""`register(...)` or `@register`, also of another object, at the start of a line."""


class Registry(Mapping[str, T], Generic[T]):
    """A mapping in the order of registration, built-in things first; reading it imports whatever registers.

    Args:
        kind: what one of them is called in messages ("optimizer").
        group: the entry-point group whose modules register them ("curvlab.optimizers").
        builtin: the module that registers curvlab's own, which is there without installed metadata too.
    """

    def __init__(self, kind: str, group: str, builtin: str) -> None:
        self.kind, self.group, self.builtin = kind, group, builtin
        self._known: dict[str, T] = {}
        self._followers: list[Callable[[str, T], None]] = []

    def register(self, name: str, thing: T) -> T:
        """Make it known by its name; returns it.

        Raises:
            ValueError: another one has the name.
        """
        known = self._known.setdefault(name, thing)
        if known is not thing and not _again(known, thing):
            raise ValueError(f"a {self.kind} named {name!r} is registered already")
        self._known[name] = thing
        if known is thing:
            for follower in self._followers:
                follower(name, thing)
        return thing

    def follow(self, follower: Callable[[str, T], None]) -> None:
        """Call `follower` with every name and thing: those that are known now, and others as they are registered.

        So a higher room makes things of its own of them (an optimizer of every curvature) without being known here.
        """
        self._followers.append(follower)
        for name, thing in tuple(self._known.items()):
            follower(name, thing)

    def knows(self, name: str) -> bool:
        """Whether something has registered under that name so far; nothing is imported."""
        return name in self._known

    def forget(self, name: str) -> None:
        """Undo `register`, for tests."""
        self._known.pop(name, None)

    def plugins(self) -> tuple[Plugin, ...]:
        """Import what registers things of this kind; a plugin that fails is reported in the result and skipped."""
        importlib.import_module(self.builtin)
        return load(self.group)

    def find(self, name: str) -> T:
        """The thing of that name.

        Raises:
            CommandError: there is none; the message names the closest, and plugins that could not be imported.
        """
        if name not in self:
            raise CommandError(f"there is no {self.kind} '{name}'", do=self.instead(name))
        return self[name]

    def instead(self, name: str) -> str:
        """What to say of a name that is none: the closest, or all there are; and what could not be imported."""
        close = difflib.get_close_matches(name.lower(), self, n=1)
        broken = [f"the plugin '{p.name}' of {p.distribution} failed: {p.error}" for p in self.plugins() if p.error]
        return "; ".join([f"did you mean '{close[0]}'" if close else f"use one of {', '.join(self)}", *broken])

    def __getitem__(self, name: str) -> T:
        self.plugins()
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        self.plugins()
        return iter(tuple(self._known))

    def __len__(self) -> int:
        self.plugins()
        return len(self._known)


def import_room(package: str, first: Sequence[str] = (), named: str | None = None) -> None:
    """Import the modules of a package of curvlab that register something: a new file needs no line anywhere.

    Modules without a call of `register` are left alone, so that names can be listed without what they import.

    Args:
        package: its name; packages inside it are entered.
        first: modules in it whose things come first, in this order; the others follow by name.
        named: import only modules with this last name.
    """
    known = importlib.import_module(package)
    modules = (one.name for one in pkgutil.walk_packages(known.__path__, f"{package}.", _broken) if not one.ispkg)
    found = sorted(name for name in modules if _registers(name))
    ordered = [*(f"{package}.{name}" for name in first), *found]
    for name in dict.fromkeys(ordered):
        last = name.rpartition(".")[2]
        if name not in (f"{package}.builtin", f"{package}.registry") and named in (None, last):
            importlib.import_module(name)


def _broken(_: str) -> None:
    """A package that cannot be imported is an error; without this it would be passed by."""
    raise


def _registers(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return bool(_CALL.search(Path(spec.origin).read_text(encoding="utf-8")))


def _again(old: object, new: object) -> bool:
    """Whether these are one class of one module that was run twice, as in a notebook."""
    if not (isinstance(old, type) and isinstance(new, type)):
        return False
    return (old.__module__, old.__qualname__) == (new.__module__, new.__qualname__)
