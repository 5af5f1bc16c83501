"""Pickles changed operation by operation, with code planted among them."""

from __future__ import annotations

import pickletools
import struct
from random import Random

from .mutations_bytes import NUMBERS, TEXTS

_GLOBALS = (
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"ctorch\nload\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"c\x1b[2J\nx\n",
)


def edited_pickle(content: bytes, random: Random, marker: str) -> bytes:
    """Operations taken out, repeated, exchanged, with other numbers and names; code planted between two of them."""
    parts, rest = _operations(content)
    for _ in range(random.choice((1, 1, 2, 3))):
        at, other = random.randrange(len(parts)), random.randrange(len(parts))
        match random.randrange(7):
            case 0:
                del parts[at]
            case 1:
                parts.insert(at, parts[other])
            case 2:
                parts[at], parts[other] = parts[other], parts[at]
            case 3:
                parts.insert(at, planted(marker) if random.random() < 0.7 else random.choice(_GLOBALS))
            case 4:
                number = random.choice(NUMBERS)
                length = number.bit_length() // 8 + 1
                parts[at] = b"\x8a" + bytes([length]) + number.to_bytes(length, "little", signed=True)
            case 5:
                text = random.choice(TEXTS).encode()
                parts[at] = b"X" + struct.pack("<I", len(text)) + text
            case _:
                places = [i for i, part in enumerate(parts) if part[:1] == b"c"] or [at]
                parts[random.choice(places)] = random.choice(_GLOBALS)
        if not parts:
            break
    return b"".join(parts) + rest


def _operations(content: bytes) -> tuple[list[bytes], bytes]:
    """The operations of one pickle, or of several in a row, and the bytes behind them."""
    parts: list[bytes] = []
    end = 0
    while True:
        begin = end
        try:
            places = [begin + position for _, _, position in pickletools.genops(content[begin:])]
        except ValueError:
            return parts, content[begin:]
        end = places[-1] + 1
        parts += [content[a:b] for a, b in zip(places, [*places[1:], end], strict=True)]


def planted(marker: str) -> bytes:
    """Operations that make the folder `marker` and leave the stack as it was."""
    text = marker.encode()
    return b"cos\nmkdir\n(X" + struct.pack("<I", len(text)) + text + b"tR0"
