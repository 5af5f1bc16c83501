"""Names of rows in the cells that there are: what all share is said once, and no two rows look alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, count

from rich.cells import cell_len, set_cell_size

from curvlab.quoting import printable

LEAST = 10
"""Cells that every name is given: enough for a number behind a beginning."""
MOST_ROWS = 0.6
"""Share of the names that a beginning needs to be left out of them."""
DEEPEST = 12
"""Parts of a beginning, at most."""
ELLIPSIS = "…"
WINDOWS = 60
"""Cuts that are tried for names that differ in their middle alone."""


@dataclass(frozen=True)
class ShownNames:
    """How names read where there is little room.

    Attributes:
        texts: name -> its text; different names have different texts.
        prefix: what names begin with and their texts leave out; empty for nothing.
        suffix: what names end with and their texts leave out.
        all: whether every text leaves it out; else a text that does begins with an ellipsis.
    """

    texts: Mapping[str, str]
    prefix: str = ""
    suffix: str = ""
    all: bool = True

    def note(self) -> str:
        """The sentence without which the texts cannot be read; empty where they are whole."""
        if not self.prefix and not self.suffix:
            return ""
        if not self.all:
            return f"{ELLIPSIS} is {self.prefix}"
        return f"in {self.prefix}" + (f"{ELLIPSIS}{self.suffix}" if self.suffix else "")


def shown_names(names: Iterable[str], room: int, share: bool = True) -> ShownNames:
    """A text for every name, of at most `room` cells, and at least of `LEAST`.

    Where all names fit they are shown whole. Else a dotted beginning that most of them share is left out and told
    once (of names that all share it, a dotted end too); then the middle of a name gives way where what is left of it
    still tells it from all others; and what can be told apart by no such cut is numbered. Without `share` nothing is
    left out but middles, for places where there is no room to tell what was.
    """
    room = max(room, LEAST)
    whole = _distinct(list(dict.fromkeys(names)))
    if all(cell_len(text) <= room for text in whole.values()):
        return ShownNames(whole)
    if not share:
        return ShownNames(_cut(whole, room))
    prefix, everywhere = _common_prefix(list(whole.values()))
    bare, suffix = dict(whole), ""
    if prefix:
        mark = "" if everywhere else ELLIPSIS
        bare = {name: mark + text[len(prefix) :] if text.startswith(prefix) else text for name, text in whole.items()}
    if everywhere and any(cell_len(text) > room for text in bare.values()):
        suffix = _common_suffix(list(bare.values()))
        bare = {name: text[: len(text) - len(suffix)] for name, text in bare.items()}
    if len(set(bare.values())) < len(bare):
        prefix, suffix, bare = "", "", whole
    return ShownNames(_cut(bare, room), prefix, suffix, everywhere)


def shortened(name: str, width: int) -> str:
    """`name` in at most `width` cells, its middle replaced by an ellipsis: both ends tell layers apart."""
    return _without_middle(name, width, (width - 1) // 2)


def _distinct(names: Sequence[str]) -> dict[str, str]:
    """Name -> its printable form, numbered where two names print alike."""
    texts = {name: printable(name) for name in names}
    often = Counter(texts.values())
    taken, numbers = set(texts.values()), count(1)
    for name, text in texts.items():
        if often[text] > 1:
            texts[name] = _numbered(text, cell_len(text) + 12, taken, numbers)
    return texts


def _common_prefix(texts: Sequence[str]) -> tuple[str, bool]:
    """The dotted beginning that saves most, of `MOST_ROWS` of the names or more, and whether all of them have it."""
    counts: Counter[str] = Counter()
    for text in texts:
        *inner, _ = text.split(".", DEEPEST)
        for beginning in accumulate(f"{part}." for part in inner):
            if beginning != text:
                counts[beginning] += 1
    enough = [prefix for prefix, count in counts.items() if count >= max(2, MOST_ROWS * len(texts))]
    best = max(enough, key=lambda prefix: counts[prefix] * (len(prefix) - 1), default="")
    shared = max((prefix for prefix in enough if counts[prefix] == len(texts)), key=len, default="")
    # One that all share needs no mark in the rows, and is worth more than a longer one of most of them.
    chosen = shared if 2 * len(shared) >= len(best) else best
    return chosen, counts[chosen] == len(texts)


def _common_suffix(texts: Sequence[str]) -> str:
    """The longest dotted end that all texts have, behind something that is left of each."""
    if len(texts) < 2:
        return ""
    first, last = (text[::-1] for text in (min(texts, key=lambda t: t[::-1]), max(texts, key=lambda t: t[::-1])))
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    end = first[:same][::-1]
    shortest = min(map(len, texts))
    place = end.find(".", max(0, len(end) - shortest + 1))
    return end[place:] if place >= 0 else ""


def _cut(bare: Mapping[str, str], room: int) -> dict[str, str]:
    """Every text in at most `room` cells, no two alike."""
    found = {name: text for name, text in bare.items() if cell_len(text) <= room}
    taken = set(found.values())
    left = [name for name in bare if name not in found]
    for cut in _cuts(bare, left, room):
        texts = {name: cut(bare[name]) for name in left}
        often = Counter(texts.values())
        for name, text in texts.items():
            if often[text] == 1 and text not in taken:
                found[name] = text
                taken.add(text)
        left = [name for name in left if name not in found]
        if not left:
            break
    numbers = count(1)
    for name in left:
        found[name] = _numbered(bare[name], room, taken, numbers)
    return {name: found[name] for name in bare}


Cut = Callable[[str], str]


def _cuts(bare: Mapping[str, str], left: Sequence[str], room: int) -> Iterator[Cut]:
    """Ways to cut a text to `room` cells: first its two ends, the most even ones first, then a piece of its middle."""
    half = (room - 1) // 2
    for head in sorted(range(room), key=lambda head: abs(head - half)):
        yield partial(_without_middle, room=room, head=head)
    longest = max((len(bare[name]) for name in left), default=0)
    head, tail = room // 4, room // 4
    for start in range(head, min(longest - tail, head + WINDOWS)):
        yield partial(_with_piece, room=room, ends=(head, tail), start=start)


def _without_middle(text: str, room: int, head: int) -> str:
    if cell_len(text) <= room:
        return text
    return _head(text, head) + ELLIPSIS + _tail(text, room - 1 - head)


def _with_piece(text: str, room: int, ends: tuple[int, int], start: int) -> str:
    """The text's two ends and what follows the place `start`, each behind an ellipsis."""
    head, tail = ends
    piece = _head(text[start:], room - head - tail - 2).rstrip()
    return _head(text, head) + ELLIPSIS + piece + ELLIPSIS + _tail(text, tail)


def _head(text: str, cells: int) -> str:
    return text[:cells] if text.isascii() else set_cell_size(text, cells)


def _tail(text: str, cells: int) -> str:
    return text[max(0, len(text) - cells) :] if text.isascii() else set_cell_size(text[::-1], cells)[::-1]


def _numbered(text: str, room: int, taken: set[str], numbers: Iterator[int]) -> str:
    """The beginning of the text with the next number that makes it the only one of its kind, added to `taken`."""
    for number in numbers:
        end = f"{ELLIPSIS}#{number}"
        made = (text if cell_len(text) + cell_len(end) <= room else _head(text, room - cell_len(end))) + end
        if made not in taken:
            break
    taken.add(made)
    return made
