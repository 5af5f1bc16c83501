"""Formats of reports by name, each an option of the commands. One of a package of one's own registers as the built-in
ones do: `@register` on its writer, in a module that the entry-point group `curvlab.reports` names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from curvlab.document.section import Document
from curvlab.registry import Registry

Write = Callable[[Document, str | None], str]
"""(document, pictures) -> the text of the file; `pictures` is the folder of the document's pictures as a link from the
file reads it, None where none are drawn."""


@dataclass(frozen=True)
class Writer:
    """One format of reports.

    Attributes:
        name: of the option (`--csv`), in small letters.
        title: of the format, as the help and `curvlab list reports` say it.
        write: makes the text.
        reads: the part of a document that it writes: "sections" for a person, "records" for programs that read tables,
            "contract" for the JSON contract.
    """

    name: str
    title: str
    write: Write
    reads: Literal["sections", "records", "contract"] = "sections"


REPORTS: Registry[Writer] = Registry("format of reports", "curvlab.reports", "curvlab.reports.builtin")
"""Every format of reports by its name."""


def register(
    name: str, title: str, *, reads: Literal["sections", "records", "contract"] = "sections"
) -> Callable[[Write], Write]:
    """Function decorator: makes the writer known by its name, with the meanings of `Writer`.

    Raises:
        ValueError: another writer has the name.
    """

    def registered(write: Write) -> Write:
        REPORTS.register(name, Writer(name, title, write, reads))
        return write

    return registered
