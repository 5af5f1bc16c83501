"""Corpus: the documents of a text file, piece by piece, within bounds: .txt, .jsonl, .parquet.

Runs in the process that tokenises (`tokenizing_child`), which imports no torch.
"""

from __future__ import annotations

import codecs
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from curvlab.errors import DataError
from curvlab.formats import strict_json

SUFFIXES = (".txt", ".text", ".md", ".jsonl", ".ndjson", ".parquet")
PIECE = 2**16
"""Bytes of text that are tokenised at once, cut at the end of a line where there is one."""
MOST_LINE = 2**24
"""Bytes of one line of .jsonl."""
FIELDS = ("text", "content")
_MAGIC = b"PAR1"


class Piece(NamedTuple):
    """Text, and whether a document begins with it and ends with it."""

    text: str
    begins: bool
    ends: bool


def is_text(path: Path) -> bool:
    """Whether a file is text by its name, or Parquet by its first bytes; plain text cannot be told otherwise."""
    if path.suffix.lower() in SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(4) == _MAGIC


def pieces(path: Path) -> Iterator[Piece]:
    """The text of a file.

    Raises:
        DataError: it is not UTF-8, no JSON lines with a text in each, or no Parquet with a column of text.
    """
    with path.open("rb") as file:
        parquet = file.read(4) == _MAGIC
    if parquet or path.suffix.lower() == ".parquet":
        for text in _column(path):
            yield from _parts(text)
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        for text in _lines(path):
            yield from _parts(text)
    else:
        yield from _plain(path)


def _parts(text: str) -> Iterator[Piece]:
    """One document in pieces."""
    start = 0
    while len(text) - start > PIECE:
        cut = text.rfind("\n", start, start + PIECE) + 1 or start + PIECE
        yield Piece(text[start:cut], start == 0, False)
        start = cut
    yield Piece(text[start:], start == 0, True)


def _plain(path: Path) -> Iterator[Piece]:
    """One document, in pieces that end with a line where possible."""
    decoder, rest, begins = codecs.getincrementaldecoder("utf-8-sig")(), "", True
    with path.open("rb") as file:
        while block := file.read(PIECE):
            try:
                text = rest + decoder.decode(block)
            except UnicodeDecodeError as error:
                raise _no_text(path, f"a byte 0x{error.object[error.start]:02x} is no UTF-8") from None
            if "\0" in text:
                raise _no_text(path, "it holds zero bytes")
            cut = text.rfind("\n") + 1 or len(text)
            piece, rest = text[:cut], text[cut:]
            yield Piece(piece, begins, False)
            begins = False
    try:
        rest += decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise _no_text(path, "it ends within a letter") from None
    yield Piece(rest, begins, True)


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MOST_LINE + 1):
            number += 1
            if len(line) > MOST_LINE:
                raise DataError(f"line {number} of '{path}' is too long", f"at most {MOST_LINE:,} bytes are read")
            if not line.strip():
                continue
            try:
                found = strict_json.parse(line)
            except ValueError as error:
                raise DataError(f"line {number} of '{path}' is no JSON", str(error)) from None
            yield _text_of(found, f"line {number} of '{path}'")


def _text_of(found: Any, where: str) -> str:
    if isinstance(found, str):
        return found
    texts = {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
    for key in FIELDS:
        if key in texts:
            return texts[key]
    if len(texts) == 1:
        return next(iter(texts.values()))
    why = f"it has {len(texts)} fields of text, and none of them is called {' or '.join(FIELDS)}"
    raise DataError(f"{where} does not say which text is meant", why, "call the field text")


def _column(path: Path) -> Iterator[str]:
    if importlib.util.find_spec("pyarrow") is None:
        why = "the library that reads Parquet, pyarrow, is not installed"
        raise DataError(f"'{path}' is a Parquet file", why, "pip install 'curvlab[text]', or give .txt or .jsonl")
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            kinds = {field.name: field.type for field in file.schema_arrow}
            words = [name for name, kind in kinds.items() if pyarrow.types.is_string(kind) or _is_large(kind)]
            name = next((name for name in FIELDS if name in words), words[0] if len(words) == 1 else None)
            if name is None:
                why = f"it has {len(words)} columns of text, and none of them is called {' or '.join(FIELDS)}"
                raise DataError(f"'{path}' does not say which text is meant", why, "call the column text")
            for batch in file.iter_batches(batch_size=64, columns=[name], use_threads=False):
                yield from (text for text in batch.column(0).to_pylist() if text is not None)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"'{path}' is not a Parquet file that can be read", said) from error


def _is_large(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_large_string(kind))


def _no_text(path: Path, why: str) -> DataError:
    return DataError(f"'{path}' is no plain text", why, "give UTF-8 text, .jsonl or .parquet")
