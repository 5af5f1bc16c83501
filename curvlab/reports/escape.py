"""Text from files made safe to print: no control character, direction override or line break reaches a terminal."""

from __future__ import annotations


def escape(text: str) -> str:
    """`text` with every character that does not print spelled out (`\\x1b`, `\\u202e`); letters of any script stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
