"""What there is to say of every optimizer: description, source, settings with their defaults; read off the classes."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn

from curvlab.errors import CurvlabError
from curvlab.optim import OPTIMIZERS, create
from curvlab.optim.core import Optimizer
from curvlab.optim.preconditioned import Preconditioned

_NOT_SETTINGS = frozenset({"self", "model", "likelihood", "groups"})
"""Arguments of constructors that are not a value somebody could write on a command line."""
_SOURCE = re.compile(r"\(((?:ren|grosse|lnb|fop|[A-Z]\w+ (?:& [A-Z]\w+|et al\.),? \d{4})\b[^()]*)\)")


@dataclass(frozen=True)
class CatalogueEntry:
    """One optimizer.

    Attributes:
        name: what `create` and `--optimizer` take.
        description: first line of the class's docstring.
        source: the papers that its module cites first.
        settings: name -> default.
        warm_starts: whether it begins with a pass over the training set.
        has_factors: whether it keeps averages of statistics that can be saved.
    """

    name: str
    description: str
    source: str
    settings: Mapping[str, Any]
    warm_starts: bool
    has_factors: bool


@cache
def catalogue() -> Mapping[str, CatalogueEntry]:
    """Every optimizer by name, in the order of `OPTIMIZERS`."""
    return {name: _entry(name, kind) for name, kind in OPTIMIZERS.items()}


def wrong_settings(name: str, settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the settings of an optimizer that exists, a sentence each; found on a network of one weight.

    Each is tried alone, so that one mistake does not hide the next.
    """
    known, hints = catalogue()[name].settings, typing.get_type_hints(OPTIMIZERS[name].__init__)
    found = []
    for key, value in settings.items():
        words = typing.get_args(hints.get(key)) if typing.get_origin(hints.get(key)) is typing.Literal else ()
        if key not in known:
            found.append(f"{name} has no setting '{key}', there are {', '.join(known)}")
        elif words and value not in words:
            found.append(f"{name}: {key} is {value!r}, not one of {', '.join(map(repr, words))}")
        elif type(known[key]) in (bool, str) and type(value) is not type(known[key]):
            kind = "true or false" if isinstance(known[key], bool) else "a word"
            found.append(f"{name}: {key} is {value!r}, not {kind}")
        else:
            try:
                _smallest(name, {key: value})
            except (CurvlabError, TypeError, ValueError) as error:
                found.append(str(error))
    return found


def _entry(name: str, kind: type[Optimizer]) -> CatalogueEntry:
    made = _smallest(name, {})
    description = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
    module = (sys.modules[kind.__module__].__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    sources = _SOURCE.findall(module)
    settings = {key: _default(made, key, default) for key, default in _arguments(kind).items()}
    return CatalogueEntry(
        name,
        description,
        sources[0] if sources else "",
        settings,
        made.warms,
        isinstance(made, Preconditioned),
    )


def _arguments(kind: type[Optimizer]) -> dict[str, Any]:
    """The constructor's settings with their defaults; those that `**shared: Unpack[...]` stands for have none here."""
    found: dict[str, Any] = {}
    for parameter in inspect.signature(kind).parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            found[parameter.name] = parameter.default
            continue
        hint = typing.get_type_hints(kind.__init__)[parameter.name]
        found |= dict.fromkeys(typing.get_args(hint)[0].__annotations__, inspect.Parameter.empty)
    return {key: default for key, default in found.items() if key not in _NOT_SETTINGS}


def _default(made: Optimizer, key: str, default: Any) -> Any:
    """The signature's default, or what an optimizer made without the setting says it uses."""
    if default is not inspect.Parameter.empty:
        return default
    places = (made.defaults, getattr(made, "schedule", {}), vars(made))
    return next((place[key] for place in places if key in place), None)


def _smallest(name: str, settings: Mapping[str, Any]) -> Optimizer:
    return create(name, nn.Linear(1, 1), likelihood="categorical", **settings)
