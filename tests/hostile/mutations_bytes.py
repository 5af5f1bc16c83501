"""Bytes changed without regard to what they mean, and the odd values that other changes put in."""

from __future__ import annotations

from random import Random

NUMBERS = (0, 1, -1, 2, 3, 64, 2**15, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 10**30)
TEXTS = (
    "",
    "\x1b[2J\n",
    "../../etc/hostname",
    "/etc/hostname",
    "a\0b",
    "x" * 5000,
    "\u202e",
    "os",
    "Lambda",
    "F64",
    "9",
)
DEEP = "a place for something deep"
VALUES = (*NUMBERS, *TEXTS, DEEP, 1e308, float("nan"), float("inf"), None, True, [], {}, [[1]], {"a": 1}, "\ud800")


def raw(content: bytes, random: Random) -> bytes:
    """One change of bytes. Formats keep their structure at both ends, where half of the changes go."""
    if not content:
        return random.randbytes(random.choice((1, 8, 100)))
    size = len(content)
    at = random.choice(
        (random.randrange(size), random.randrange(min(size, 300)), size - 1 - random.randrange(min(size, 700)))
    )
    length = random.choice((1, 2, 4, 8, 16, random.randrange(1, size + 1)))
    match random.randrange(8):
        case 0:
            return content[:at] + bytes([random.randrange(256)]) + content[at + 1 :]
        case 1:
            return content[:at] + bytes([content[at] ^ 1 << random.randrange(8)]) + content[at + 1 :]
        case 2:
            return content[:at]
        case 3:
            return content[:at] + content[at + length :]
        case 4:
            return content[:at] + random.randbytes(min(length, 64)) + content[at:]
        case 5:
            return content[:at] + content[at : at + length] * random.choice((2, 2, 50)) + content[at + length :]
        case 6:
            number = random.choice(NUMBERS) % 2**64
            width = random.choice((2, 4, 8))
            written = (number % 2 ** (8 * width)).to_bytes(width, random.choice(("little", "little", "big")))
            return content[:at] + written + content[at + width :]
        case _:
            other = random.randrange(size)
            return _exchanged(content, at, other, min(length, 64))


def _exchanged(content: bytes, at: int, other: int, length: int) -> bytes:
    first, second = sorted((at, other))
    length = min(length, second - first, len(content) - second)
    middle = content[first + length : second]
    return (
        content[:first]
        + content[second : second + length]
        + middle
        + content[first : first + length]
        + content[second + length :]
    )
