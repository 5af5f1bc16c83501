"""A pickle read as data: its instructions are followed with inert stand-ins; nothing is imported, looked up or called.

`pickletools.genops` splits the stream into instructions; the machine below keeps the same stack and memo as an
unpickler, but a class is only its name (`Global`), a call only a record of what would be called with what (`Call`), and
a dictionary only a list of pairs. What comes out says everything about a file that one wants to know before letting
torch read it. Instruction set: Python's `Lib/pickletools.py`.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# A hundred thousand tensors take about 15 MB and three million instructions.
MAX_BYTES = 64 * 2**20
MAX_INSTRUCTIONS = 8_000_000
# torch's files of before version 1.6 begin with the number 0x1950a86a20f9469cfc6c, pickled.
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


# Instructions that push their own argument: numbers, text, bytes.
_PUSHES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING"}
    | {"SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES"}
    | {"BINBYTES8", "BYTEARRAY8"}
)
_OUTSIDE = frozenset({"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"})


class Global(NamedTuple):
    """A class or function that the pickle names: never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Persistent(NamedTuple):
    """A reference out of the pickle; in torch's files, to a storage."""

    identifier: Any


@dataclass(slots=True, eq=False)
class Table:
    """A dictionary as pairs, in order: keys need not be hashable, and equal keys stay two."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Call:
    """`function(*arguments)` with what the pickle would put into the result afterwards: never called."""

    function: Any
    arguments: Any
    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    state: Any = None


@dataclass(slots=True)
class Contents:
    """What a pickle holds: its value in stand-ins, its protocol, and every class, call and reference met on the way."""

    value: Any = None
    protocol: int = 0
    globals: dict[Global, None] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    persistent: list[Persistent] = field(default_factory=list)
    instructions: int = 0


class NotAPickle(ValueError):  # noqa: N818 - the caller turns it into a sentence about its own file
    """The bytes are no complete pickle within the limits; the message says what is wrong."""


def read_pickle(stream: io.BytesIO, most: int = MAX_INSTRUCTIONS) -> Contents:
    """The contents of the pickle that begins at the stream's position, which moves behind it.

    Args:
        stream: the bytes.
        most: instructions that are followed.

    Raises:
        NotAPickle: cut off, not made of pickle instructions, or longer than the limits.
    """
    contents = Contents()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # odd escapes in a file's text are no fault of ours
            _run(stream, contents, most)
    except NotAPickle:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):
        # What Python says of it is about this machine and not about the file.
        why = "an instruction does not fit what stands before it"
        raise NotAPickle(f"byte {stream.tell()}: {why}") from None
    return contents


def _instructions(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    """(name of the instruction, its argument) up to the end of the pickle."""
    found = pickletools.genops(stream)
    while True:
        at = stream.tell()
        try:
            opcode, argument, _ = next(found)
        except StopIteration:
            return
        except (ValueError, OverflowError, MemoryError):  # in the words of Python's own decoders
            why = "what stands there is no instruction of a pickle" if stream.read(1) else "it is cut off there"
            raise NotAPickle(f"byte {at}: {why}") from None
        yield opcode.name, argument


class _Machine:
    """The pickle machine: a stack, marks in it, and a memo; calls become `Call`s, and nothing is called."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Obey one instruction."""
        if opcode in _PUSHES:
            self.stack.append(argument)
        elif opcode in _OUTSIDE:
            raise NotAPickle(f"it uses {opcode}, which refers to something outside the file")
        elif not (self._place(opcode, argument) or self._contain(opcode) or self._name(opcode, argument)):
            raise NotAPickle(f"it uses {opcode}, which nothing here knows")

    def _place(self, opcode: str, argument: Any) -> bool:
        """Instructions that move what is there; False for others."""
        stack, memo = self.stack, self.memo
        match opcode:
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[_number(argument)] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[_number(argument)])
            case "MARK":
                self.marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode])
            case "POP":
                del stack[-1]
            case "POP_MARK":
                self._above_mark()
            case "DUP":
                stack.append(stack[-1])
            case "STOP":
                self.contents.value = stack.pop()
            case "PROTO":
                self.contents.protocol = _number(argument)
            case "FRAME":
                pass
            case _:
                return False
        return True

    def _contain(self, opcode: str) -> bool:
        """Instructions that make or fill a container; False for others."""
        stack = self.stack
        match opcode:
            case "TUPLE":
                stack.append(tuple(self._above_mark()))
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(opcode[-1]))]
                stack.append(tuple(reversed(items)))
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_SET":
                stack.append(Call(Global("builtins", "set"), ()))
            case "LIST":
                stack.append(self._above_mark())
            case "FROZENSET":
                stack.append(Call(Global("builtins", "frozenset"), (self._above_mark(),)))
            case "EMPTY_DICT":
                stack.append(Table())
            case "DICT":
                stack.append(Table(_paired(self._above_mark())))
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1].pairs.append((key, value))
            case "SETITEMS":
                pairs = _paired(self._above_mark())
                stack[-1].pairs.extend(pairs)
            case "APPEND" | "APPENDS" | "ADDITEMS":
                items = [stack.pop()] if opcode == "APPEND" else self._above_mark()
                (stack[-1] if isinstance(stack[-1], list) else stack[-1].items).extend(items)
            case _:
                return False
        return True

    def _name(self, opcode: str, argument: Any) -> bool:
        """Instructions that name something, call it or set its state; False for others."""
        stack = self.stack
        match opcode:
            case "GLOBAL":
                stack.append(self._named(*str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(self._named(module, name))
            case "INST":
                stack.append(self._called(self._named(*str(argument).split(" ", 1)), tuple(self._above_mark())))
            case "OBJ":
                function, *arguments = self._above_mark()
                stack.append(self._called(function, tuple(arguments)))
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(self._called(stack.pop(), arguments))
            case "NEWOBJ_EX":
                keywords, arguments, function = stack.pop(), stack.pop(), stack.pop()
                stack.append(self._called(function, (arguments, keywords)))
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case "BINPERSID" | "PERSID":
                reference = Persistent(stack.pop() if opcode == "BINPERSID" else argument)
                self.contents.persistent.append(reference)
                stack.append(reference)
            case _:
                return False
        return True

    def _above_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _named(self, module: Any, name: Any) -> Global:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise NotAPickle("a class is named by something other than text")
        found = Global(module, name)
        self.contents.globals[found] = None
        return found

    def _called(self, function: Any, arguments: Any) -> Call:
        call = Call(function, arguments)
        self.contents.calls.append(call)
        return call


def _run(stream: io.BytesIO, contents: Contents, most: int) -> None:
    machine = _Machine(contents)
    for opcode, argument in _instructions(stream):
        contents.instructions += 1
        if contents.instructions > most:
            raise NotAPickle(f"it has more than {most} instructions")
        machine.step(opcode, argument)


def _number(argument: Any) -> int:
    return int(argument)


def _paired(items: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(items[::2], items[1::2], strict=True))
