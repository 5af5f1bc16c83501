"""Analyses by name. One of a package of one's own registers as the built-in ones do: `@register` on its class, in a
module that the entry-point group `curvlab.analyses` names."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from typing import TypeVar

from curvlab.analyses.definition import AnalysisDefinition, LayerAnalysis, ModelAnalysis
from curvlab.errors import CommandError
from curvlab.registry import Registry

ANALYSES: Registry[type[AnalysisDefinition]] = Registry("analysis", "curvlab.analyses", "curvlab.analyses.builtin")
"""Every analysis by name."""

Kind = TypeVar("Kind", bound=type[AnalysisDefinition])


def register(kind: Kind) -> Kind:
    """Class decorator: makes the analysis known by its name.

    Raises:
        ValueError: another analysis has the name.
    """
    ANALYSES.register(kind.name, kind)
    return kind


def definitions() -> tuple[AnalysisDefinition, ...]:
    """Every analysis: the built-in ones in the order of their columns, then others as they were registered.

    The order does not depend on which file was imported first.
    """
    from curvlab.analyses.builtin import ORDER

    places = {f"curvlab.analyses.{name}": place for place, name in enumerate(ORDER)}
    kinds = sorted(ANALYSES.values(), key=lambda kind: places.get(kind.__module__, len(places)))
    return tuple(_made(kind) for kind in kinds)


@cache
def _made(kind: type[AnalysisDefinition]) -> AnalysisDefinition:
    return kind()


def layer_analyses() -> tuple[LayerAnalysis, ...]:
    """The analyses with one result per layer."""
    return tuple(one for one in definitions() if isinstance(one, LayerAnalysis))


def model_analyses() -> tuple[ModelAnalysis, ...]:
    """The analyses with rows of their own."""
    return tuple(one for one in definitions() if isinstance(one, ModelAnalysis))


def names() -> tuple[str, ...]:
    """The name of every analysis, in the order of `definitions`."""
    return tuple(one.name for one in definitions())


def sort_keys() -> tuple[str, ...]:
    """What tables can be sorted by: "model", "name", "parameters", and what any analysis adds."""
    added = (key for one in layer_analyses() for key in one.rankings)
    return tuple(dict.fromkeys(("model", "name", "parameters", *added)))


def check_sort(sort: str) -> None:
    """Refuse an unknown order of rows.

    Raises:
        CommandError: the message names the closest known one.
    """
    known = sort_keys()
    if sort not in known:
        close = get_close_matches(sort.lower(), known, n=1)
        do = f"did you mean '{close[0]}'" if close else f"use one of {', '.join(known)}"
        raise CommandError(f"--sort '{sort}' is no order of rows", do=do)
