"""`key=value` as people write it after `--set`: numbers, true, false, none, words, and numbers in a row: 0.9,0.999."""

from __future__ import annotations

import re

from curvlab.errors import CommandError

Value = bool | int | float | str | tuple[int | float, ...] | None

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_REAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def assignment(text: str) -> tuple[str, Value]:
    """The name and the value in `text`; a `-` in the name is `_`.

    Raises:
        CommandError: it has no `=`, no name, or no value.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not re.fullmatch(r"[A-Za-z][\w-]*", key, re.ASCII) or not value:
        raise CommandError(f"--set '{text}' is not an assignment", do="write NAME=VALUE, such as lr=0.03")
    return key.replace("-", "_"), parse_value(value)


def parse_value(text: str) -> Value:
    """true and false are truth values, none is None, digits a whole number, decimals a float, else a word.

    Numbers with commas between them are a tuple, with or without brackets around them. Quotes make a word of anything:
    `"1"`.
    """
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() == "none":
        return None
    if (number := _number(text)) is not None:
        return number
    inside = text[1:-1] if text[:1] + text[-1:] in ("[]", "()") else text
    numbers = [_number(part.strip()) for part in inside.split(",")]
    if len(numbers) > 1 and None not in numbers:
        return tuple(one for one in numbers if one is not None)
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text


def _number(text: str) -> int | float | None:
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _REAL.fullmatch(text) else None
