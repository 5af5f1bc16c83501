"""How a spectrum reads in one cell: its condition number with the standard error; and as a number of a summary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from curvlab.analyses.question import Question, infinite
from curvlab.analyses.ranking import Rank, by_condition
from curvlab.document.numbers import ABSENT, condition, with_error
from curvlab.operators.summary import Spectrum


def spectrum_text(spectrum: Spectrum | None) -> str:
    """ "312 ±4%"; "∞ (1.2e7)" where it is singular, with λmax/λmin over the range."""
    if spectrum is None:
        return ABSENT
    text = condition(spectrum.condition_number, spectrum.condition_number_nonzero)
    return with_error(text, spectrum.condition_number, spectrum.stderr.get("condition_number"))


def spectrum_question(title: str, of: str, legend: str) -> Question:
    """The condition number of the spectrum in the field `of` of a result.

    Args:
        title: heading of its column.
        of: name of a field that holds a `Spectrum` or None.
        legend: what the title means.
    """

    def condition_of(use: Callable[[Spectrum], Any]) -> Callable[[Any], Any]:
        return lambda result: None if (found := getattr(result, of)) is None else use(found)

    def ranked(spectrum: Spectrum) -> Rank:
        return by_condition(spectrum.condition_number, spectrum.condition_number_nonzero)

    return Question(
        title,
        f"{of}.condition_number",
        condition_of(lambda spectrum: infinite(spectrum.condition_number)),
        condition_of(lambda spectrum: condition(spectrum.condition_number, spectrum.condition_number_nonzero)),
        legend,
        ranked=condition_of(ranked),
    )
