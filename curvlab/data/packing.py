"""Packing: tokens of documents, one after another, cut into sequences of one length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Packing:
    """Sequences of `length` tokens, filled from the front.

    Attributes:
        length: tokens of a sequence.
        most: how many sequences are wanted.
        prefix: tokens that every sequence begins with.
        suffix: tokens that every sequence ends with.
        sequences: those that are full.
        rest: tokens behind the last full one.
    """

    length: int
    most: int
    prefix: list[int] = field(default_factory=list)
    suffix: list[int] = field(default_factory=list)
    sequences: list[list[int]] = field(default_factory=list)
    rest: list[int] = field(default_factory=list)

    @property
    def room(self) -> int:
        """Tokens of text in a sequence."""
        return self.length - len(self.prefix) - len(self.suffix)

    @property
    def full(self) -> bool:
        """Whether there are as many sequences as are wanted."""
        return len(self.sequences) >= self.most

    def add(self, tokens: Iterable[int]) -> None:
        """Tokens that follow those before."""
        self.rest.extend(tokens)
        start = 0
        while not self.full and len(self.rest) - start >= self.room:
            self.sequences.append([*self.prefix, *self.rest[start : start + self.room], *self.suffix])
            start += self.room
        self.rest = self.rest[start:]

    def finish(self) -> None:
        """Of a text shorter than one sequence make a shorter one."""
        if not self.sequences and self.rest:
            self.sequences.append([*self.prefix, *self.rest, *self.suffix])
            self.rest = []
