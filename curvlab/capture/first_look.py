"""FirstLook: what the survey decides of places in a forward pass, and every batch after it obeys.

Whether a tensor has an axis of examples shows in its shape only where no other axis is as long as that of the examples.
A batch of as many examples as positions could not tell.
"""

from __future__ import annotations

from collections.abc import Collection


class FirstLook:
    """Decisions by place: the words that describe it, and how often they have come in this forward pass.

    Args:
        decided: the places that the survey has said yes to; None for the survey itself.

    Attributes:
        places: those that it has said yes to so far.
    """

    def __init__(self, decided: Collection[str] | None = None) -> None:
        self.decided = None if decided is None else frozenset(decided)
        self.places: set[str] = set()
        self._counts: dict[str, int] = {}

    @property
    def deciding(self) -> bool:
        """Whether this is the survey."""
        return self.decided is None

    def begin(self) -> None:
        """A forward pass begins."""
        self._counts = {}

    def place(self, *words: str) -> str:
        """The next place of these words."""
        name = " ".join(words)
        self._counts[name] = self._counts.get(name, 0) + 1
        return f"{name} {self._counts[name]}"

    def agreed(self, place: str, guess: bool) -> bool:
        """The survey's guess, which later batches are given in place of their own."""
        if self.decided is not None:
            return place in self.decided
        if guess:
            self.places.add(place)
        return guess
