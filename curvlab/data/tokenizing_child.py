"""`python -m curvlab.data.tokenizing_child`: tokenises text in a process of its own, within limits of time and memory.

A tokenizer.json is data from elsewhere: its expressions may take for ever, its tables all memory, and the library that
reads it ends on some of them. Whatever happens then happens here.

stdin: one line of JSON, a `TokenizingRequest`. stdout: one line of JSON, then the tokens as 64-bit numbers, or a line
{"refused": [what, why, do]}.
"""

from __future__ import annotations

import array
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from curvlab.data.corpus import pieces
from curvlab.data.packing import Packing
from curvlab.errors import DataError


class TokenizingRequest(NamedTuple):
    """What is to be tokenised.

    Attributes:
        tokenizer: path of the tokenizer.json.
        corpus: path of the text.
        length: tokens of a sequence.
        most: sequences that are wanted.
        around: whether every sequence ends as a text does ([CLS] … [SEP]), and not every document; it begins as one
            does in any case, since a network was trained on texts that begin so.
        separator: the token between documents, or None.
        seconds: of computing.
        memory: bytes of address space.
    """

    tokenizer: str
    corpus: str
    length: int
    most: int
    around: bool
    separator: int | None
    seconds: int
    memory: int


def main() -> None:
    """Answer one request."""
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    request = TokenizingRequest(**json.loads(sys.stdin.readline()))
    _limit(request)
    try:
        facts, tokens = _packed(request)
    except DataError as error:
        facts, tokens = {"refused": [error.found, error.why, error.do]}, array.array("q")
    channel.write(json.dumps(facts).encode("ascii") + b"\n" + tokens.tobytes())
    channel.close()


def _limit(request: TokenizingRequest) -> None:
    with suppress(ImportError, ValueError, OSError):  # no such limits on this system
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (request.seconds, request.seconds))
        resource.setrlimit(resource.RLIMIT_AS, (request.memory, request.memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _packed(request: TokenizingRequest) -> tuple[Mapping[str, Any], array.array[int]]:
    tokenizer = _tokenizer(Path(request.tokenizer))
    before, behind = _surroundings(request, tokenizer)
    packing = Packing(request.length, request.most, before, behind if request.around else [])
    if packing.room < 1:
        why = f"the tokenizer puts {len(before) + len(behind)} tokens around each text"
        raise DataError(f"sequences of {request.length} tokens have no room for text", why, "raise --sequence-length")
    more = False
    for piece in pieces(Path(request.corpus)):
        more = packing.full
        if more:
            break
        if not piece.text and piece.begins:
            continue  # an empty document
        if piece.begins and packing.rest and not request.around:
            packing.add(before)
        packing.add(_encoded(request, tokenizer, piece.text))
        if piece.ends:
            packing.add([] if request.around else _end(behind, request.separator))
    packing.finish()
    found = packing.sequences
    facts = {
        "count": len(found),
        "length": len(found[0]) if found else 0,
        "more": more or (packing.full and bool(packing.rest)),
        "rest": len(packing.rest),
    }
    return facts, array.array("q", (token for one in found for token in one))


def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(path.read_bytes())
        tokenizer.no_truncation()
        tokenizer.no_padding()
    except BaseException as error:  # the library's own end is no Exception
        raise DataError(f"'{path}' is not a tokenizer that can be read", _said(error)) from None
    return tokenizer


def _encoded(request: TokenizingRequest, tokenizer: Any, text: str, around: bool = False) -> list[int]:
    try:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=around).ids
    except BaseException as error:
        names = Path(request.tokenizer).name, Path(request.corpus).name
        raise DataError(f"the folder's {names[0]} cannot tokenise {names[1]}", _said(error)) from None
    return ids


def _surroundings(request: TokenizingRequest, tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens that the tokenizer puts before a text and behind it."""
    bare, whole = (_encoded(request, tokenizer, "a", around) for around in (False, True))
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []


def _said(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _end(behind: list[int], separator: int | None) -> list[int]:
    return [*behind, separator] if separator is not None and separator not in behind else behind


if __name__ == "__main__":
    main()
