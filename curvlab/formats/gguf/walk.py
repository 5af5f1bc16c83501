"""Walk: a file read from its beginning, in which nothing is taken that the file has not.

Every length in a GGUF file is a claim of 64 bits; each is held against the bytes that are left before it is believed.
"""

from __future__ import annotations

import struct
from typing import IO, Any

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Number of a type of values -> its letter in `struct`."""
STRING, ARRAY = 8, 9
MOST_HEADER = 2**28
"""Bytes of names, settings and vocabularies; those of large models have ten million."""
MOST_STRINGS = 2**22
MOST_DEPTH = 2
KEPT = 200
"""Characters of a string that is kept; longer ones are passed over."""


class Claim(Exception):  # noqa: N818 - it becomes a sentence about the file
    """What the file claims and has not."""


class Walk:
    """Numbers and strings, one after another.

    Args:
        file: open for reading, at its beginning.
        size: its bytes.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size, self.position, self.strings = file, size, 0, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        self._advance(count)
        found = self.file.read(count)
        if len(found) != count:
            raise Claim("it changed while it was being read")
        return found

    def skip(self, count: int) -> None:
        """Pass over the next bytes."""
        self._advance(count)
        self.file.seek(self.position)

    def number(self, letter: str) -> Any:
        """One number, by its letter in `struct`."""
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(letter)))[0]

    def string(self, most: int, what: str) -> str:
        """A string of at most so many bytes.

        Raises:
            Claim: it is longer, or no UTF-8.
        """
        length = self.number("Q")
        if length > most:
            raise Claim(f"{what} claims {length} bytes, and at most {most} are read")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise Claim(f"{what} is not UTF-8") from None

    def value(self, kind: int, depth: int = 0) -> Any:
        """A value of the settings: a number, or a short string; None of an array or a long string."""
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self._text()
        if kind == ARRAY and depth < MOST_DEPTH:
            self._array(depth)
            return None
        raise Claim(f"a value has the type {kind}, which there is not" if kind != ARRAY else "arrays stand in arrays")

    def _text(self) -> str | None:
        self.strings += 1
        if self.strings > MOST_STRINGS:
            raise Claim(f"it holds more than {MOST_STRINGS} strings")
        length = self.number("Q")
        if length > KEPT:
            self.skip(length)
            return None
        return self.take(length).decode("utf-8", errors="replace")

    def _array(self, depth: int) -> None:
        kind, count = self.number("I"), self.number("Q")
        if kind in SCALARS:
            self.skip(count * struct.calcsize(SCALARS[kind]))
            return
        if count > MOST_STRINGS:
            raise Claim(f"an array claims {count} members")
        for _ in range(count):
            self.value(kind, depth + 1)

    def _advance(self, count: int) -> None:
        if count > self.size - self.position:
            raise Claim(f"it claims {count} bytes at place {self.position}, and {self.size - self.position} are left")
        self.position += count
        if self.position > MOST_HEADER:
            raise Claim(f"its header is longer than {MOST_HEADER} bytes")
