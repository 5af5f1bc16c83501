"""Patterns of layers' names: `model.layers.3.self_attn.q_proj` is one of `model.layers.*.self_attn.q_proj`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

MOST_PATTERNS = 24
"""More patterns than these are no summary: numbers inside words then count as places too."""
MOST_NAMES = 6
"""Names, or patterns of names, that a sentence spells out before the rest is only counted."""
ANY = "*"

Groups = dict[str, list[int]]
"""Pattern -> the places of its names in the list they came in."""


def by_pattern(names: Sequence[str], kinds: Sequence[str] | None = None, most: int = MOST_PATTERNS) -> Groups:
    """Names that differ in numbers alone, in the order of their first ones.

    A part between dots that is a number is a place. Where that leaves more than `most` patterns, so are the numbers in
    all parts but the last (`layer1.0.conv1` is one of `layer*.*.conv1`), and then those in the last. A pattern of one
    name is that name.

    Args:
        names: of layers, all different.
        kinds: of the same layers; those of different kinds are never together, and say so behind the pattern.
        most: patterns that are wanted; there may be more.
    """
    ways: tuple[Callable[[str], str], ...] = (_numbers, _numbers_in_words, _all_numbers)
    for way in ways:
        found = _grouped([way(name) for name in names], kinds)
        if len(found) <= most:
            break
    named: Groups = {}
    for pattern, places in found.items():
        named.setdefault(names[places[0]] if len(places) == 1 else pattern, []).extend(places)
    return named


def named(names: Sequence[str]) -> str:
    """The names in a sentence: "fc1, fc2"; of more than `MOST_NAMES` "h.*.mlp × 12, head"; of more patterns than that
    the first ones and "and 7 more"."""
    if len(names) <= MOST_NAMES:
        return ", ".join(names)
    groups = list(by_pattern(names, most=MOST_NAMES).items())
    shown = groups[:MOST_NAMES]
    rest = len(names) - sum(len(places) for _, places in shown)
    text = ", ".join(name if len(places) == 1 else f"{name} × {len(places):,}" for name, places in shown)
    return f"{text} and {rest:,} more" if rest else text


def place_of(name: str, pattern: str) -> str:
    """The numbers of the name that the pattern leaves open, with dots between: "3.17"; empty where it has none."""
    words = pattern.partition(" (")[0]
    expression = re.escape(words).replace(re.escape(ANY), r"(\d+)")
    found = re.fullmatch(expression, name)
    return ".".join(found.groups()) if found else ""


def _grouped(patterns: Sequence[str], kinds: Sequence[str] | None) -> Groups:
    known = kinds if kinds is not None else [""] * len(patterns)
    together: dict[tuple[str, str], list[int]] = {}
    for place, key in enumerate(zip(patterns, known, strict=True)):
        together.setdefault(key, []).append(place)
    often: dict[str, int] = {}
    for pattern, _ in together:
        often[pattern] = often.get(pattern, 0) + 1
    found: Groups = {}
    for (pattern, kind), places in together.items():
        found.setdefault(f"{pattern} ({kind})" if often[pattern] > 1 else pattern, []).extend(places)
    return found


def _numbers(name: str) -> str:
    return ".".join(ANY if part.isdecimal() else part for part in name.split("."))


def _numbers_in_words(name: str) -> str:
    *inner, last = name.split(".")
    return ".".join([*(re.sub(r"\d+", ANY, part) for part in inner), ANY if last.isdecimal() else last])


def _all_numbers(name: str) -> str:
    return re.sub(r"\d+", ANY, name)
