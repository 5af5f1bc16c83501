"""The inert reader of pickles: the same values as Python's own reader, and nothing executed."""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from curvlab.formats.torch.pickle_trace import Call, Global, NotAPickle, Table, read_pickle


def plain(value: Any) -> Any:
    """Stand-ins turned back into what they stand for, as far as that is a plain value."""
    if isinstance(value, Table):
        return {plain(key): plain(inner) for key, inner in value.pairs}
    if isinstance(value, Call) and str(value.function) in {"builtins.set", "builtins.frozenset"}:
        return {plain(item) for item in (*value.items, *(value.arguments[0] if value.arguments else ()))}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


VALUES = [
    None,
    [True, False],
    [0, 255, 256, -1, 2**31, 2**70, -(2**70), 10**400],
    [0.5, float("inf"), -1e300],
    ["", "text", "ü→\U0001f600", "x" * 300],
    [b"", b"bytes", b"x" * 300],
    [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    [[], {}, {"a": {"b": [1]}}, {1: "x", (2, 3): "y"}],
    [{1, 2}, frozenset({3})],
    list(range(5000)),
]


# Protocols before 4 write bytes and sets as calls of classes, which stand-ins do not make.
READABLE = [(n, p) for n in range(len(VALUES)) for p in range(2, 6) if p >= 4 or n not in (5, 8)]


@pytest.mark.parametrize(("number", "protocol"), READABLE)
def test_plain_values(number: int, protocol: int) -> None:
    stream = io.BytesIO(pickle.dumps(VALUES[number], protocol) + b"rest")
    assert plain(read_pickle(stream).value) == VALUES[number]
    assert stream.read() == b"rest"


@pytest.mark.parametrize("protocol", [0, 1])
def test_text_protocols(protocol: int) -> None:
    value = {"a": [1, -2.5, None, "x\ny", (1, 2)], "b": {"c": 2**40}}
    assert plain(read_pickle(io.BytesIO(pickle.dumps(value, protocol))).value) == value


def test_shared_and_circular_values() -> None:
    shared = ["x"]
    circle: list[Any] = [shared, shared]
    circle.append(circle)
    value = read_pickle(io.BytesIO(pickle.dumps(circle))).value
    assert value[0] is value[1]
    assert value[2] is value


def test_classes_and_calls_are_recorded_by_name() -> None:
    value = [Decimal("1.5"), collections.OrderedDict(a=1), Path("x")]
    contents = read_pickle(io.BytesIO(pickle.dumps(value, 2)))
    names = {str(name) for name in contents.globals}
    assert {"decimal.Decimal", "collections.OrderedDict"} <= names
    assert {str(call.function) for call in contents.calls} <= names
    (ordered,) = [call for call in contents.calls if call.function == Global("collections", "OrderedDict")]
    assert ordered.pairs == [("a", 1)]


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return exec, (f"__import__('pathlib').Path({str(self.marker)!r}).touch()",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_executed(protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    data = pickle.dumps(Bomb(marker), protocol)
    contents = read_pickle(io.BytesIO(data))
    assert [name.name for name in contents.globals] == ["exec"]
    assert not marker.exists()
    pickle.loads(data)  # the control: this pickle does what it says
    assert marker.exists()


def test_odd_escapes_in_text_are_followed_in_silence() -> None:
    assert read_pickle(io.BytesIO(b"S'a\\o'\n.")).value == "a\\o"


BROKEN = {
    "empty": b"",
    "cut off": pickle.dumps(list(range(100)))[:-5],
    "no instruction": b"\x80\x02\xff.",
    "too few values": b"\x80\x02\x85.",
    "no mark": b"\x80\x02t.",
    "unknown memo": b"\x80\x02h\x07.",
    "key without value": b"\x80\x02}(K\x01u.",
    "value put into a number": b"\x80\x02K\x01K\x02a.",
    "class named by a number": b"\x80\x04K\x01K\x02\x93.",
    "class registered outside the file": b"\x80\x02\x82\x01.",
    "out of band": b"\x80\x05\x97.",
    "an integer of a million digits": b"I" + b"9" * 10**6 + b"\n.",
    "text that claims four gigabytes": b"\x80\x02X\xff\xff\xff\xff.",
    "bytes that claim 2**62": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b".",
    "nothing on the stack": b"\x80\x02.",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pickles(name: str) -> None:
    with pytest.raises(NotAPickle):
        read_pickle(io.BytesIO(BROKEN[name]))


def test_deep_nesting_is_followed_without_recursion() -> None:
    depth = 200_000
    value = read_pickle(io.BytesIO(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")).value
    count = 0
    while value:
        (value,) = value
        count += 1
    assert count == depth - 1


def test_every_instruction_of_python_is_known() -> None:
    source = Path(read_pickle.__code__.co_filename).read_text()
    assert [code.name for code in pickletools.opcodes if f'"{code.name}"' not in source] == []
