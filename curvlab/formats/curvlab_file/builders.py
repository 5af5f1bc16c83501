"""Networks by name: a builder is registered in code, a file records only its name and plain arguments.

register_builder("vision-transformer", lambda **arguments: VisionTransformer(**arguments))
module = build_registered("vision-transformer", {"image": (1, 8, 8), "patch": 2, …})
save(path, module)  # the module knows its builder; for one made otherwise, architecture={"builder": …, "arguments": …}
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from curvlab.errors import CheckpointError
from curvlab.plugins import load
from curvlab.quoting import listed, quoted, reason

if TYPE_CHECKING:
    from torch import nn

    Builder = Callable[..., nn.Module]

_BUILDERS: dict[str, Builder] = {}
_MADE_BY = "_curvlab_builder"
"""Attribute of a network that a builder made: {"builder": name, "arguments": {…}}. It is copied with the network."""


class UnknownBuilder(CheckpointError):  # noqa: N818 - a kind of CheckpointError, caught where a file can do without
    """A file names a builder that no installed code has registered."""


def register_builder(name: str, build: Builder) -> None:
    """Makes `name` usable in the architecture of a file.

    Whoever opens the file needs the builder: register it where a module named in the entry-point group
    `curvlab.problems` is imported, as the built-in ones are, and loading finds it by itself.

    Args:
        name: lasting and unique: files will carry it.
        build: called with the recorded arguments by keyword; returns the network with any weights. It must allocate no
            more than its parameters, so that it can be tried on the meta device.

    Raises:
        ValueError: another function already has the name.
    """
    if _BUILDERS.setdefault(name, build) is not build:
        raise ValueError(f"a builder named {name!r} is registered already")


def build_registered(name: Any, arguments: Mapping[str, Any]) -> nn.Module:
    """The network of a registered builder, which remembers how it was made.

    Raises:
        UnknownBuilder: the name is not registered.
        CheckpointError: the builder does not take these arguments.
    """
    if not isinstance(name, str) or not _found(name):
        known = f"known are {listed(sorted(_BUILDERS))}" if _BUILDERS else "no builder is registered"
        raise UnknownBuilder(f"no builder is named {quoted(name)}", known, "import the package that registers it")
    try:
        module = _BUILDERS[name](**arguments)
    except Exception as error:
        raise CheckpointError(f"the builder {quoted(name)} refuses the recorded arguments", reason(error)) from error
    vars(module)[_MADE_BY] = {"builder": name, "arguments": dict(arguments)}
    return module


def recorded_builder(module: nn.Module) -> dict[str, Any] | None:
    """{"builder": name, "arguments": {…}} of a network that `build_registered` made; None for any other."""
    made: dict[str, Any] | None = vars(module).get(_MADE_BY)
    return made


def _found(name: str) -> bool:
    """Whether the builder is known, after plugins were imported."""
    if name not in _BUILDERS:
        # Problems stand above this room: they are reached by name, as the modules of plugins are.
        importlib.import_module("curvlab.problems.builtin")  # also there without installed metadata
        load("curvlab.problems")
    return name in _BUILDERS
