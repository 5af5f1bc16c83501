"""Which analyses are run: those that are asked for, or all that the inputs allow; and what is asked for in vain."""

from __future__ import annotations

from curvlab.analyses.definition import AnalysisDefinition
from curvlab.analyses.registry import definitions
from curvlab.analyses.settings import Settings, readers_of
from curvlab.analyses.settings import chosen as not_default
from curvlab.errors import CommandError, CurvlabError
from curvlab.formats.checkpoint import Checkpoint


def chosen_analyses(settings: Settings, checkpoint: Checkpoint, *, data: bool) -> tuple[AnalysisDefinition, ...]:
    """The analyses that are asked for, or by default all that the inputs allow."""
    if settings.analyses is None:
        wanted = (one for one in definitions() if one.by_default or _asked(one, settings))
        found = tuple(one for one in wanted if one.missing(checkpoint) is None)
        for one in found:
            if one.data == "needed" and _asked(one, settings):
                _refuse_without_data(one.name, checkpoint, data=data)
        return found
    asked = tuple(one for one in definitions() if one.name in settings.analyses)
    for one in asked:
        if one.data == "needed":
            _refuse_without_data(one.name, checkpoint, data=data)
        reason = one.missing(checkpoint)
        if reason is not None:
            raise reason
    return asked


def _asked(one: AnalysisDefinition, settings: Settings) -> bool:
    """Whether a setting asks for the analysis."""
    return one.asked_by is not None and getattr(settings, one.asked_by) is not None


def refuse_idle(settings: Settings, chosen: tuple[AnalysisDefinition, ...], *, data: bool, given: bool) -> None:
    """Raise where something was chosen that has no effect.

    Args:
        settings: what was chosen.
        chosen: the analyses.
        data: whether there is data.
        given: whether it was given, and not recorded by the file.
    """
    about_data = list(readers_of(not_default(vars(settings))))
    if about_data and not data:
        found = f"{about_data[0]} is about the pass over the data"
        raise CommandError(found, "no data was given and the file records none", "give --data, or leave it out")
    if given and settings.analyses and all(one.data == "unused" for one in chosen):
        asked = ", ".join(settings.analyses)
        raise CommandError("data is given", f"of what was asked for ({asked}) nothing needs any", "leave one out")


def _refuse_without_data(name: str, checkpoint: Checkpoint, *, data: bool) -> None:
    if checkpoint.module is None:
        why = next((note for note in checkpoint.notes if "--trust" in note), "the file holds weights only")
        raise CurvlabError(
            f"'{name}' needs a network that runs", why, "" if "--trust" in why else "give --architecture"
        )
    if not data:
        raise CurvlabError(f"'{name}' needs data", "none was given and the file records none", "give --data")
