"""Text from files, read within bounds: regular files alone, so many bytes, numbers of so many digits.

Readers of TOML and JSON take what they are given: a device is read for ever, a key of 100,000 parts takes quadratic
time, a number of 5,000 digits is an error that speaks of Python's own switches. What is read here is small by nature,
so that bounds far above any real file keep all of that out.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5})?'  # TOML's four kinds of words, closed or not: each is one token
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5})?"
    r'|"(?:[^"\\\n]|\\.)*+"?'
    r"|'[^'\n]*+'?"
    r"|\#[^\n]*+"
    r"|[\w+-]++"
    r"|\s++"
    r"|.",
    re.DOTALL | re.ASCII,
)


@dataclass(frozen=True)
class Bounds:
    """What a file may hold at most.

    Attributes:
        size: bytes.
        depth: brackets within brackets, and parts of a dotted key.
        keys: assignments.
        digits: of a number.
        letters: of a word.
    """

    size: int = 2**16
    depth: int = 8
    keys: int = 1000
    digits: int = 100
    letters: int = 4096


def read_bounded(path: Path, size: int) -> bytes:
    """The bytes of a regular file (a link to one is followed) of at most `size` bytes.

    Raises:
        ValueError: one clause: what else it is, or that it is larger.
        OSError: it cannot be opened.
    """
    # Without O_NONBLOCK a named pipe would wait for its other end.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no regular file but a pipe, a device or a socket")
        if found.st_size > size:
            raise ValueError(f"it has {found.st_size:,} bytes, and at most {size:,} are read")
        content = file.read(size + 1)
    if len(content) > size:
        raise ValueError(f"it grew beyond {size:,} bytes while it was read")
    return content


def check_toml(text: str, bounds: Bounds) -> None:
    """Do nothing when `text` is within `bounds`, in one pass over it; whether it is TOML is not asked.

    Raises:
        ValueError: one clause: which bound it passes, and by what.
    """
    depth = parts = keys = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        first = token[0]
        if first in "\"'":
            if len(token) > bounds.letters:
                raise ValueError(f"a word in it has {len(token):,} letters, and at most {bounds.letters:,} are read")
        elif first.isspace() or first == "#":
            parts = 0 if "\n" in token else parts
            continue
        elif len(token) > 1 or token.isalnum() or first == "_":
            # A number may be written with signs, a point and underscores: its digits before and after are two tokens.
            if len(token) > bounds.digits and first in "0123456789+-":
                raise ValueError(f"a number in it has {len(token):,} digits, and at most {bounds.digits:,} are read")
        elif first == ".":
            parts += 1
        elif first in "[{":
            depth += 1
        elif first in "]}":
            depth -= 1
        elif first in "=,":
            parts = 0
            keys += first == "="
        if max(depth, parts) >= bounds.depth:
            raise ValueError(f"it is nested more than {bounds.depth - 1} deep")
        if keys > bounds.keys:
            raise ValueError(f"it has more than {bounds.keys:,} keys")
