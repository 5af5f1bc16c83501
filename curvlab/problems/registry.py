"""Problems by name. A package of one's own registers as the built-in ones do: `register(Problem(...))` in a module
that the entry-point group `curvlab.problems` names."""

from __future__ import annotations

import difflib

from curvlab.errors import CommandError
from curvlab.plugins import Plugin, load
from curvlab.problems.problem import Problem

_PROBLEMS: dict[str, Problem] = {}


def register(problem: Problem) -> Problem:
    """Make `problem` known by its name; returns it.

    Raises:
        ValueError: another problem has the name.
    """
    if _PROBLEMS.setdefault(problem.name, problem) is not problem:
        raise ValueError(f"a problem named {problem.name!r} is registered already")
    return problem


def problem(name: str) -> Problem:
    """The problem called `name`.

    Raises:
        CommandError: there is none; the message names the closest.
    """
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name.lower(), known, n=1)
        do = f"did you mean '{close[0]}'" if close else f"use one of {', '.join(known)}"
        raise CommandError(f"there is no problem '{name}'", do=do)
    return _PROBLEMS[name]


def names() -> tuple[str, ...]:
    """Every problem's name, the built-in ones first, in the order they were registered."""
    load_problems()
    return tuple(_PROBLEMS)


def load_problems() -> tuple[Plugin, ...]:
    """Import whatever registers problems; a plugin that fails is reported in the result and skipped."""
    import curvlab.problems.builtin  # noqa: F401 - also there when curvlab runs without installed metadata

    return load("curvlab.problems")
