"""Numbers as people read them in a narrow table: 312, 3.2e5, 1.5 GiB, ∞."""

from __future__ import annotations

import math

ABSENT = "–"
"""A number that does not exist or was not computed."""
INFINITE = "∞"


def short(value: float | None) -> str:
    """Three significant digits below 10,000, two and a power of ten beyond; whole numbers below 10,000 as they are."""
    if value is None or math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return INFINITE if value > 0 else f"-{INFINITE}"
    if value == int(value) and abs(value) < 10_000:
        return str(int(value))
    if abs(value) >= 10_000 or abs(value) < 0.001:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def condition(value: float | None, over_range: float | None = None) -> str:
    """A condition number; ∞ when it is null, with λmax/λmin over the range in brackets where that is known."""
    if value is not None:
        return short(value)
    return INFINITE if over_range is None else f"{INFINITE} ({short(over_range)})"


def with_error(text: str, value: float | None, error: float | None) -> str:
    """`text` and its standard error in per cent of `value`: "312 ±4%".

    Above 100 % only that is said: the error is itself a guess from two halves, and the number's size is then unknown.
    """
    if not value or error is None or not math.isfinite(error):
        return text
    percent = 100 * abs(error / value)
    return f"{text} ±{'<1' if percent < 0.5 else '>100' if percent > 100 else f'{percent:.0f}'}%"


def count(value: int) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,}"


def size(value: float) -> str:
    """Bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:,.3g} TiB"


def operations(value: float) -> str:
    """A number of operations with a decimal prefix."""
    for prefix in ("", " k", " M", " G", " T"):
        if value < 1000:
            return f"{value:.3g}{prefix}"
        value /= 1000
    return f"{value:,.3g} P"


def duration(seconds: float) -> str:
    """ "0.3 s", "45 s", "12 min", "3.5 h": two digits, as an estimate has."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def share(part: int, total: int) -> str:
    """`part` of `total` in per cent: 0% and 100% only where it is exactly so."""
    if not total or part in (0, total):
        return "nothing" if not total else "0%" if not part else "100%"
    percent = 100 * part / total
    return "<0.1%" if percent < 0.1 else f"{min(percent, 99.9):.1f}%"


def shape(sides: tuple[int, ...]) -> str:
    """`(32, 1, 3, 3)` as 32x1x3x3."""
    return "x".join(map(str, sides)) or "scalar"
