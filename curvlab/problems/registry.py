"""Problems by name. A package of one's own registers as the built-in ones do: `register(Problem(...))` in a module
that the entry-point group `curvlab.problems` names."""

from __future__ import annotations

from curvlab.plugins import Plugin
from curvlab.problems.problem import Problem
from curvlab.registry import Registry

PROBLEMS: Registry[Problem] = Registry("problem", "curvlab.problems", "curvlab.problems.builtin")
"""Every problem by name, the built-in ones first."""


def register(problem: Problem) -> Problem:
    """Make `problem` known by its name; returns it.

    Raises:
        ValueError: another problem has the name.
    """
    return PROBLEMS.register(problem.name, problem)


def problem(name: str) -> Problem:
    """The problem called `name`.

    Raises:
        CommandError: there is none; the message names the closest.
    """
    return PROBLEMS.find(name)


def names() -> tuple[str, ...]:
    """Every problem's name, the built-in ones first, in the order they were registered."""
    return tuple(PROBLEMS)


def load_problems() -> tuple[Plugin, ...]:
    """Import whatever registers problems; a plugin that fails is reported in the result and skipped."""
    return PROBLEMS.plugins()
