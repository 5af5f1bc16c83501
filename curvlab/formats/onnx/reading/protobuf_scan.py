"""Protocol buffers counted without parsing them: an empty message takes two bytes in a file and a hundred in memory."""

from __future__ import annotations

MOST_FIELDS = 2_000_000
# Fields that hold messages, by message; all others are numbers, text and raw bytes, which are skipped.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "small", 14: "small", 20: "small", 25: "function"},
    "graph": {1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value", 14: "small", 15: "sparse", 16: "small"},
    "node": {1: "text", 2: "text", 5: "attribute", 9: "small", 10: "small"},
    "attribute": {
        5: "tensor",
        6: "graph",
        9: "text",
        10: "tensor",
        11: "graph",
        14: "value",
        15: "value",
        22: "sparse",
        23: "sparse",
    },
    "tensor": {6: "text", 13: "small", 16: "small"},
    "function": {4: "text", 5: "text", 6: "text", 7: "node", 9: "small", 11: "attribute", 12: "value", 14: "small"},
    "sparse": {1: "tensor", 2: "tensor"},
    "value": {2: "type"},
    "type": {1: "type", 2: "shape", 4: "type", 5: "type", 8: "type", 9: "type"},
    "shape": {1: "text"},
    "small": {},
    "text": {},
}


def count_fields(content: bytes) -> int:
    """How many fields the messages of a model have together, or a number above MOST_FIELDS if there are more.

    Bytes that are no message count as none: parsing them says so.
    """
    count, stack = 0, [("model", 0, len(content))]
    while stack:
        message, at, end = stack.pop()
        inner = _MESSAGES[message]
        while at < end:
            count += 1
            if count > MOST_FIELDS:
                return count
            key, at = _number(content, at, end)
            kind = key & 7
            if kind == 0:
                _, at = _number(content, at, end)
            elif kind == 2:
                size, at = _number(content, at, end)
                if size > end - at:
                    break
                child = inner.get(key >> 3)
                if child is not None and size and _MESSAGES[child]:
                    stack.append((child, at, at + size))
                at += size
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            else:
                break
    return count


def _number(content: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            return 0, end
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    return value, at
