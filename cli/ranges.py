"""Several numbers in one option: `1e-4:1:7`, `0.01,0.1`, `0,1,2`."""

from __future__ import annotations

from curvlab.errors import CommandError


def parse_range(text: str | None, option: str) -> tuple[float, ...]:
    """`1e-4:1:7` as seven values evenly spaced by ratio; a list with commas as it is.

    Raises:
        CommandError: it is neither.
    """
    if text is None:
        return ()
    try:
        if ":" not in text:
            return tuple(float(part) for part in text.split(","))
        low, high, count = text.split(":")
        first, last, number = float(low), float(high), int(count)
    except ValueError:
        raise CommandError(f"{option} '{text}' is no range", do="write FROM:TO:N, such as 1e-4:1:7") from None
    if not (0 < first < float("inf") and 0 < last < float("inf") and 1 <= number <= 100):
        raise CommandError(f"{option} '{text}' is no range of positive numbers with 1 to 100 values")
    return tuple(first * (last / first) ** (k / max(1, number - 1)) for k in range(number))


def parse_whole_numbers(text: str | None, option: str) -> tuple[int, ...]:
    """`0,1,2` as three numbers.

    Raises:
        CommandError: a part is no whole number.
    """
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise CommandError(f"{option} '{text}' is no list of whole numbers", do="write 0,1,2") from None
