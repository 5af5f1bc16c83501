"""Text from a file made safe to print: control characters escaped, long text cut, long lists shortened.

A model file chooses its own tensor names, and a name may hold terminal escape sequences, line breaks or right-to-left
marks. Nothing read from a file, nor a file's own name, enters a message without passing through here.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

_LONGEST = 160


def escaped(text: object) -> str:
    r"""Printable form of any text: `"a\x1b[31m"` → `"a\\x1b[31m"`; letters of every language stay as they are."""
    cut = str(text)
    return printable(cut if len(cut) <= _LONGEST else f"{cut[: _LONGEST // 2]}…{cut[-_LONGEST // 2 :]}")


def printable(text: str) -> str:
    """`text` with every character that does not print spelled out (`\\x1b`, `\\u202e`), however long it is."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(text: object) -> str:
    """`escaped(text)` between quotation marks, for use inside a sentence."""
    return f"'{escaped(text)}'"


def listed(names: Iterable[object], count: int = 5) -> str:
    """`"'a', 'b' and 3 more"`: the first `count` names quoted, the others counted."""
    iterator = iter(names)
    shown = ", ".join(quoted(name) for name in islice(iterator, count))
    rest = sum(1 for _ in iterator)
    return shown if not rest else f"{shown} and {rest} more"


def reason(error: BaseException) -> str:
    """The first line of an exception's message, escaped; its class name when the message is empty."""
    lines = str(error).strip().splitlines()
    return escaped(lines[0]) if lines else type(error).__name__
