"""OptimizerSpec: which optimizers are compared, under which labels, with which settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curvlab.errors import CommandError
from curvlab.fields import in_effect, tupled
from curvlab.optim.catalogue import wrong_settings
from curvlab.optim.declared import settings_of
from curvlab.optim.registry import OPTIMIZERS
from curvlab.training.assignment import parse_value

_LABEL = re.compile(r"[A-Za-z][\w+-]*", re.ASCII)
_ASSIGNMENT = re.compile(r"([A-Za-z][\w+-]*)\.([A-Za-z][\w-]*)\s*=\s*(.+)", re.ASCII)


@dataclass(frozen=True)
class OptimizerSpec:
    """One optimizer of a comparison.

    Attributes:
        label: what results call it; usually the optimizer's name.
        optimizer: its name.
        settings: those asked for; a problem's recommendations and the optimizer's defaults stand behind them.
    """

    label: str
    optimizer: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", tupled(self.settings))

    def completed(self, *behind: Mapping[str, Any]) -> dict[str, Any]:
        """Its settings, and behind them those of `behind` (the first counts most) that the optimizer knows."""
        fields, merged = settings_of(OPTIMIZERS[self.optimizer]), dict(self.settings)
        for settings in behind:
            merged |= in_effect(fields, merged, settings)
        return merged


def specs(
    optimizers: Sequence[str], settings: Mapping[str, Mapping[str, Any]] | None = None, also: Iterable[str] = ()
) -> tuple[OptimizerSpec, ...]:
    """A specification for every word, `"kfac"` or `"label=kfac"`, so that one optimizer can run with several settings.

    Args:
        optimizers: the words.
        settings: label -> setting -> value.
        also: further labels that `settings` may speak of, such as the baseline's.

    Raises:
        CommandError: an optimizer, a label or a setting that does not exist, or a label given twice.
    """
    if not optimizers:
        raise CommandError("no optimizer is given to compare", do=f"choose among {', '.join(OPTIMIZERS)}")
    given = dict(settings or {})
    named = [_split(word) for word in optimizers]
    labels = [label for label, _ in named]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise CommandError(
            f"'{twice[0]}' is compared twice", "", f"give it labels: a={twice[0]},b={twice[0]} with settings for each"
        )
    for label in given:
        if label not in {*labels, *also}:
            raise CommandError(f"settings are given for '{label}'", f"compared are {', '.join(labels)}")
    found = tuple(OptimizerSpec(label, name, dict(given.get(label, {}))) for label, name in named)
    check(found)
    return found


def check(found: Iterable[OptimizerSpec]) -> None:
    """Raise CommandError at the first setting that is wrong."""
    for one in found:
        if wrong := wrong_settings(one.optimizer, one.settings):
            raise CommandError(wrong[0])


def assignments(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`"kfac.damping=0.03"` … as label -> setting -> value.

    Raises:
        CommandError: a text that is no such assignment.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        match = _ASSIGNMENT.fullmatch(text.strip())
        if match is None:
            raise CommandError(f"--set '{text}' is not an assignment", do="write LABEL.NAME=VALUE: kfac.damping=0.03")
        label, key, value = match.groups()
        found.setdefault(label, {})[key.replace("-", "_")] = parse_value(value.strip())
    return found


def _split(word: str) -> tuple[str, str]:
    label, equals, name = (part.strip() for part in word.partition("="))
    name = name if equals else label
    OPTIMIZERS.find(name)
    if not _LABEL.fullmatch(label):
        raise CommandError(
            f"'{label}' cannot be a label", "it begins with a letter and has letters, digits, _, + and - only"
        )
    return label, name
