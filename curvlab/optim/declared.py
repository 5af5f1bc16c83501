"""An optimizer's settings are its constructor's keywords: which there are, and whether the values of a call can be."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from torch import Tensor, nn

from curvlab.errors import CurvlabError
from curvlab.field_types import DECAY, FROM_ZERO, POSITIVE, Bound
from curvlab.fields import Field, Setting, fields_of, renamed, unknown, wrong

if TYPE_CHECKING:
    from curvlab.optim.grouped_parameters import GroupedParameters

ARGUMENTS = frozenset({"model", "params", "likelihood", "groups"})
"""Arguments of constructors that are objects, which a command line cannot give."""
NO_SETTINGS = ARGUMENTS | {"curvature", "target", "defaults", "settings"}
"""These, and what base classes are given by their subclasses."""

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
"""What torch.optim takes in place of a network."""

Rate = Annotated[float, Setting("α: the learning rate.", FROM_ZERO)]
Damping = Annotated[float, Setting("λ, as the method means it.", POSITIVE, symbol="λ")]
Epsilon = Annotated[float, Setting("ε, added to every factor.", POSITIVE, symbol="ε")]
WeightDecay = Annotated[float, Setting("γ: weights shrink by 1 − αγ at every step.", FROM_ZERO, default=0.0)]

BY_NAME: Mapping[str, Bound] = {"lr": FROM_ZERO, "weight_decay": FROM_ZERO, "momentum": DECAY}
"""Bounds of these settings for constructors that declare none."""


def settings_of(kind: type[GroupedParameters]) -> dict[str, Field]:
    """The settings of an optimizer by name, with types, bounds and defaults."""
    found = dict(fields_of(kind, NO_SETTINGS))
    for name in BY_NAME.keys() & found.keys():
        if found[name].setting == Setting():
            found[name] = replace(found[name], setting=Setting(bound=BY_NAME[name]))
    return found


def check_call(kind: type[GroupedParameters], args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
    """Raise one CurvlabError with everything that is wrong with the settings of a constructor's call."""
    first = args[0] if args else given.get("model")
    if first is not None and not isinstance(first, nn.Module) and not kind.takes_parameters:
        raise CurvlabError(
            f"{kind.name} was given a {type(first).__name__}",
            "it looks at a network's layers while they run, which parameters alone do not show",
            f"give the network itself: {kind.__name__}(model, ...)",
        )
    settings = settings_of(kind)
    accepted = {*settings, *(ARGUMENTS & fields_of(kind).keys())}
    for name in given:
        if name not in accepted:
            raise CurvlabError(f"{kind.name} has no setting {name!r}", *instead(settings, name))
    try:
        values = inspect.signature(kind.__init__).bind_partial(None, *args, **given).arguments
    except TypeError:  # the constructor itself says what is missing or given twice
        return
    values = {**{name: value for name, value in values.items() if name in settings}, **given}
    if values.get("groups") is not None:  # a group may have the values beside which a setting has its effect
        settings = {name: replace(one, setting=replace(one.setting, when={})) for name, one in settings.items()}
    if found := wrong(settings, values):
        raise CurvlabError(f"{kind.name}: {'; '.join(found)}")


def instead(settings: Mapping[str, Field], name: str) -> tuple[str, str]:
    """Of a setting that there is not: why (it was renamed), and what to do."""
    why, colon, do = (renamed(settings, name) or "").partition(": ")
    return (why, do) if colon else ("", unknown(settings, name))


def check_group(kind: type[GroupedParameters], group: Mapping[str, Any]) -> None:
    """Raise one CurvlabError with everything that is wrong with a parameter group's settings."""
    settings = settings_of(kind)
    problems = [settings[name].problem(value) for name, value in group.items() if name in settings]
    if found := [problem for problem in problems if problem]:
        raise CurvlabError(f"{kind.name}: {'; '.join(found)}")
