"""How a spectrum reads in one cell: its condition number with the standard error."""

from __future__ import annotations

from curvlab.document.numbers import ABSENT, condition, with_error
from curvlab.operators.summary import Spectrum


def spectrum_text(spectrum: Spectrum | None) -> str:
    """ "312 ±4%"; "∞ (1.2e7)" where it is singular, with λmax/λmin over the range."""
    if spectrum is None:
        return ABSENT
    text = condition(spectrum.condition_number, spectrum.condition_number_nonzero)
    return with_error(text, spectrum.condition_number, spectrum.stderr.get("condition_number"))
