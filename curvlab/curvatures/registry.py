"""Curvatures by name. A recipe under `@register("mine")` is at once an analysis, an optimizer and an entry of
comparisons: the rooms above make them of it. A package's own is in a module that the entry-point group
`curvlab.curvatures` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from curvlab.curvatures.curvature import Curvature
from curvlab.registry import Registry

CURVATURES: Registry[type[Curvature]] = Registry("curvature", "curvlab.curvatures", "curvlab.curvatures.builtin")
"""Every registered recipe by name; its class is called without arguments."""

Kind = TypeVar("Kind", bound=type[Curvature])


def register(name: str, *, source: str = "", help: str = "") -> Callable[[Kind], Kind]:
    """A decorator that makes a recipe known by a name.

    Args:
        name: of the curvature, and of the analysis and the optimizer that are made of it.
        source: the paper it is from.
        help: one sentence for `curvlab list`.

    Raises:
        TypeError: the class is no `Curvature`.
        ValueError: another recipe has the name.
    """

    def made(kind: Kind) -> Kind:
        if not (isinstance(kind, type) and issubclass(kind, Curvature)):
            raise TypeError(f"{kind!r} is registered as the curvature {name!r} and is no Curvature")
        kind.name, kind.source, kind.help = name, source, help
        CURVATURES.register(name, kind)
        return kind

    return made
