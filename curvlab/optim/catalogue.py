"""What there is to say of every optimizer: description, source, settings with their defaults; as the classes declare
them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curvlab.fields import unknown, wrong
from curvlab.optim.core import Optimizer
from curvlab.optim.declared import settings_of
from curvlab.optim.registry import OPTIMIZERS


@dataclass(frozen=True)
class CatalogueEntry:
    """One optimizer.

    Attributes:
        name: what `create` and `--optimizer` take.
        description: first line of the class's docstring.
        source: the paper that it is from.
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


def catalogue() -> Mapping[str, CatalogueEntry]:
    """Every optimizer by name, in the order of `OPTIMIZERS`."""
    return {name: _entry(name, kind) for name, kind in OPTIMIZERS.items()}


def wrong_settings(name: str, settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the settings of an optimizer that exists, a sentence each."""
    fields = settings_of(OPTIMIZERS[name])
    found = [f"{name} has no setting '{key}', {unknown(fields, key)}" for key in settings if key not in fields]
    return [*(f"{name}: {sentence}" for sentence in wrong(fields, settings)), *found]


def _entry(name: str, kind: type[Optimizer]) -> CatalogueEntry:
    description = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
    settings = {key: field.default for key, field in settings_of(kind).items()}
    return CatalogueEntry(name, description, kind.source, settings, kind.warms, kind.keeps_factors)
