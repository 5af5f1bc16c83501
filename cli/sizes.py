"""Sizes of memory as people write them."""

from __future__ import annotations

import math
import re

from curvlab.errors import CommandError

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {f"{_letter}b": 1000**_power, _letter: 1024**_power, f"{_letter}ib": 1024**_power}


def parse_size(text: str, option: str) -> int:
    """Bytes: `8GiB` and `8G` are 8·1024³, `8GB` is 8·1000³, `1500000` is itself; case does not matter.

    Raises:
        CommandError: when `text` is not such a size, or is below one byte.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(match[2].lower()) if match else None
    value = math.floor(float(match[1]) * unit) if match and unit else 0
    if value < 1:
        raise CommandError(f"{option} '{text}' is not a size", do="write a number and a unit, such as 8GiB or 500MB")
    return value
