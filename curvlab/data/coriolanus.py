"""The words of Shakespeare's Coriolanus (1608, public domain) as sequences of characters, each with the next character
for its target. Speeches and the names of those who speak them, without stage directions: 154,000 characters, ASCII."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from curvlab.data.dataset import Dataset

LENGTH = 64
"""Characters of one example."""


@cache
def text() -> str:
    """The play."""
    return files("curvlab.data").joinpath("coriolanus.txt").read_text(encoding="ascii")


@cache
def characters() -> str:
    """The characters that occur, in the order of their codes: the place of one is its number."""
    return "".join(sorted(set(text())))


def read_coriolanus() -> Dataset:
    """x `(n, 64)`: numbers of characters; y `(n, 64)`: those one place further on. Sequences follow each other without
    overlap; what is left at the end is left out, so that all positions of all examples count."""
    import torch

    codes = torch.frombuffer(bytearray(text(), "ascii"), dtype=torch.uint8).long()
    number = torch.zeros(128, dtype=torch.int64)
    known = characters()
    number[[ord(character) for character in known]] = torch.arange(len(known))
    numbers = number[codes]
    count = (len(numbers) - 1) // LENGTH
    x = numbers[: count * LENGTH].reshape(count, LENGTH)
    y = numbers[1 : count * LENGTH + 1].reshape(count, LENGTH)
    return Dataset("coriolanus", x, y, "Coriolanus (Shakespeare 1608, public domain)", task="classification")
