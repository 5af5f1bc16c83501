"""JSON as written in model files: one meaning only, or an error that says why not."""

from __future__ import annotations

import json
from typing import Any

from curvlab.quoting import quoted, reason

MOST_DIGITS = 1000


def parse(text: bytes | str) -> Any:
    """The value of `text`, refusing what readers understand differently.

    Python's own reader keeps the last of two equal keys and accepts NaN; here both are errors, so that what is checked
    is what every other reader sees.

    Raises:
        ValueError: one sentence: not UTF-8, not JSON, a key twice, NaN or infinity, nested too deep.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_whole)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({reason(error)})") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {quoted(twice)} stands in it twice")
    return table


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:  # Python reads no more than 4,300, and takes long for those
        raise ValueError(f"it holds a whole number of {len(text)} digits")
    return int(text)


def _no_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is not JSON")
