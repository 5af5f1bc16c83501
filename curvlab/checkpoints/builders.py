"""Networks by name: a builder is registered in code, a file records only its name and plain arguments.

register_builder("digits-cnn", lambda channels=8: nn.Sequential(...))
save(path, module, architecture={"builder": "digits-cnn", "arguments": {"channels": 16}})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from curvlab.checkpoints.quoting import listed, quoted, reason
from curvlab.errors import CheckpointError

Builder = Callable[..., nn.Module]
_BUILDERS: dict[str, Builder] = {}


class UnknownBuilder(CheckpointError):  # noqa: N818 - a kind of CheckpointError, caught where a file can do without
    """A file names a builder that no imported code has registered."""


def register_builder(name: str, build: Builder) -> None:
    """Makes `name` usable in the architecture of a file.

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
    """The network of a registered builder.

    Raises:
        UnknownBuilder: nobody registered the name.
        CheckpointError: the builder does not take these arguments.
    """
    if not isinstance(name, str) or name not in _BUILDERS:
        known = f"known are {listed(sorted(_BUILDERS))}" if _BUILDERS else "no builder is registered"
        raise UnknownBuilder(f"no builder is named {quoted(name)}", known, "import the package that registers it")
    try:
        module = _BUILDERS[name](**arguments)
    except Exception as error:
        raise CheckpointError(f"the builder {quoted(name)} refuses the recorded arguments", reason(error)) from error
    return module
