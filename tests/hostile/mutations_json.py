"""JSON changed as a tree, and the header of safetensors, which is JSON behind its length."""

from __future__ import annotations

import json
import struct
from random import Random
from typing import Any

from .mutations_bytes import DEEP, NUMBERS, TEXTS, VALUES


def _value(random: Random, before: Any = None) -> Any:
    if isinstance(before, int) and not isinstance(before, bool) and random.random() < 0.4:
        return random.choice((before + 1, before - 1, -before, before * 2, before * 2**32))
    return random.choice(VALUES)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in JSON."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
        found += [(value, key) for key in keys]
        waiting += [value[key] for key in keys]
    return found


def edited_json(content: bytes, random: Random, marker: str) -> bytes:
    """Values replaced, taken out, exchanged, repeated, put under another key."""
    tree = [json.loads(content)]
    for _ in range(random.choice((1, 1, 2, 3))):
        places = _places(tree)
        owner, key = random.choice(places)
        other, its_key = random.choice(places)
        match random.randrange(7):
            case 0 if owner is not tree:
                del owner[key]
            case 1:
                # A copy: a value inside itself cannot be written.
                owner[key] = json.loads(json.dumps(other[its_key]))
            case 2 if isinstance(owner, dict):
                owner[str(random.choice((*TEXTS, its_key)))] = json.loads(json.dumps(owner[key]))
            case 3 if isinstance(owner, list) and owner is not tree:
                owner.append(json.loads(json.dumps(owner[key])))
            case _:
                owner[key] = _value(random, owner[key])
    text = json.dumps(tree[0])
    if random.random() < 0.05 and text.startswith('{"'):
        text = text[:-1] + "," + text[1:]  # every key twice
    return text.replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000).encode()


def edited_safetensors(content: bytes, random: Random, marker: str) -> bytes:
    """The header changed as JSON (strings of JSON within its metadata too), its length right or not."""
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size]
    metadata = json.loads(header).get("__metadata__", {})
    inner = [key for key, value in metadata.items() if value.startswith("{")]
    if inner and random.random() < 0.6:
        table, key = json.loads(header), random.choice(inner)
        changed = edited_json(metadata[key].encode(), random, marker)
        table["__metadata__"][key] = changed.decode()
        header = json.dumps(table).encode()
    else:
        header = edited_json(header, random, marker)
    length = len(header) if random.random() < 0.9 else random.choice(NUMBERS) % 2**64
    return struct.pack("<Q", length) + header + content[8 + size :]
