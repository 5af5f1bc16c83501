"""Numbers in a result's JSON by their path: `coverage.analyzed`, `fc1.moments.rank`, `any.tnt.modes.0.rank`."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

QUANTIFIERS = ("any", "all")
PART = r"\"[^\"]+\"|'[^']+'|\w+"
"""One name of a path: a word, or anything in quotes."""


class NoNumber(Exception):  # noqa: N818 - not a failure by itself: under a quantifier it means "leave this layer out"
    """A path that gives no number; the message says why."""


@dataclass(frozen=True)
class Path:
    """A path as written.

    Attributes:
        text: the whole of it.
        quantifier: "any" or "all" when it is about a layer that a quantifier binds, else "".
        keys: what to follow; the first is a layer's name or a key of the document.
    """

    text: str
    quantifier: str
    keys: tuple[str, ...]

    def number(self, document: Mapping[str, Any], bound: Mapping[str, Any] | None) -> float:
        """The number this path leads to; `bound` is the layer that a quantifier is at.

        A condition number that is null is infinite, unless the rank beside it is null too: then it was not computed.

        Raises:
            NoNumber: the path leads nowhere, or to something that is not a number.
        """
        if self.quantifier and bound is not None:
            root = bound
        else:
            root = {**document, **{layer["name"]: layer for layer in document["layers"]}}
        value = _follow(root, self.keys, self.text)
        if value is None and "condition_number" in self.keys and "stderr" not in self.keys:
            beside = _follow(root, self.keys[:-1], self.text)
            if beside.get("rank", 0) is not None or beside.get("nonfinite"):
                return math.inf
        if value is None:
            raise NoNumber(f"'{self.text}' is null: it was not computed or does not exist")
        if not isinstance(value, (bool, int, float)):
            raise NoNumber(f"'{self.text}' is not a number")
        return float(value)


def parse_path(text: str) -> Path:
    """A path from its text; a part in quotes is one name, whatever is in it."""
    parts = re.findall(PART, text)
    keys = tuple(part[1:-1] if part[0] in "\"'" else part for part in parts)
    if parts[0] in QUANTIFIERS:
        return Path(text, parts[0], keys[1:])
    return Path(text, "", keys)


def _follow(value: Any, keys: Sequence[str], text: str) -> Any:
    """Where `keys` lead from `value`. Names have dots in them, so the longest run of keys that is a name is taken."""
    while keys:
        if isinstance(value, Mapping):
            taken = next((n for n in range(len(keys), 0, -1) if ".".join(keys[:n]) in value), 0)
            if not taken:
                raise NoNumber(f"'{text}' leads nowhere: {_alternatives(keys[0], [str(key) for key in value])}")
            value, keys = value[".".join(keys[:taken])], keys[taken:]
        elif isinstance(value, list) and keys[0].isdecimal() and int(keys[0]) < len(value):
            value, keys = value[int(keys[0])], keys[1:]
        elif value is None:
            raise NoNumber(f"'{text}' leads nowhere: what holds '{keys[0]}' was not computed")
        else:
            raise NoNumber(f"'{text}' leads nowhere: there is no '{keys[0]}'")
    return value


def _alternatives(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    found = f"did you mean {_written(close[0])}" if close else f"but {', '.join(map(_plain, known[:12]))}"
    return f"there is no '{key}', {found}"


def _plain(name: str) -> str:
    """A name as a path has it: in quotes where it is no word."""
    return name if re.fullmatch(r"\w+", name) else f'"{name}"'


def _written(name: str) -> str:
    return f"'{_plain(name)}'"
