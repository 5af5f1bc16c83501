"""Where a document goes: JSON, CSV and Markdown to files or stdout, pictures to a folder, the rest to the terminal."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curvlab.errors import CommandError

from .output import STDOUT, check_target, deliver, say, show

if TYPE_CHECKING:
    from curvlab.document.section import Document


@dataclass(frozen=True)
class Targets:
    """The files that a command was asked for: paths, "-" for stdout, or None for none.

    Attributes:
        json: of the JSON contract.
        csv: of the records.
        markdown: of the whole report.
        plots: folder of the pictures.
    """

    json: str | None = None
    csv: str | None = None
    markdown: str | None = None
    plots: Path | None = None

    def check(self) -> None:
        """Refuse, before any work, what could not be delivered after it.

        Raises:
            CommandError: a file cannot be written, or two of them are to be stdout.
        """
        for path, option in self._options():
            check_target(path, option)
        taken = [option for path, option in self._options() if path == STDOUT]
        if len(taken) > 1:
            both = " and ".join(taken)
            raise CommandError(f"{both} both ask for stdout", "only one can have it", "give one of them a file")
        if self.plots is not None and self.plots.exists() and not self.plots.is_dir():
            raise CommandError(f"--plots '{self.plots}' is a file", "the name of a folder was expected")

    def refuse(self, reason: str) -> None:
        """Refuse all but the JSON, for the `reason` that there is nothing to write into them.

        Raises:
            CommandError: another file was asked for.
        """
        asked = [option for path, option in self._options()[1:] if path is not None]
        asked += ["--plots"] if self.plots is not None else []
        if asked:
            raise CommandError(f"{asked[0]} has nothing to show", reason, "use --json, or leave it out")

    @property
    def stdout_is_taken(self) -> bool:
        """Whether one of the files is stdout: then nothing else is written there."""
        return any(path == STDOUT for path, _ in self._options())

    def _options(self) -> tuple[tuple[str | None, str], ...]:
        return (self.json, "--json"), (self.csv, "--csv"), (self.markdown, "--markdown")


def publish(document: Document, targets: Targets) -> None:
    """Files first, so that a reader who closes the pipe early loses nothing; then the terminal's report, unless stdout
    is taken; and what was drawn."""
    from curvlab.document.json import dumps
    from curvlab.reports.csv import to_csv
    from curvlab.reports.terminal import print_document

    if targets.json is not None:
        deliver(dumps(document.contract()), targets.json)
    if targets.csv is not None and document.records is not None:
        deliver(to_csv(document.records()), targets.csv)
    if targets.markdown is not None:
        from curvlab.reports.markdown import to_markdown

        deliver(to_markdown(document, _link(targets)), targets.markdown)
    drawn = None if targets.plots is None else _drawn(document, targets.plots)
    if not targets.stdout_is_taken:
        show(lambda console: print_document(console, document))
    if drawn is not None:
        say(drawn)


def _drawn(document: Document, folder: Path) -> str:
    """Draws the pictures, and says what they are."""
    from curvlab.reports.plots import draw

    written = draw(document.figures(), folder)
    names = ", ".join(sorted({path.stem for path in written}))
    return f"drawn in {folder}, as PNG and SVG: {names}" if written else "--plots: there is nothing to draw"


def _link(targets: Targets) -> str | None:
    """The folder of the pictures as a link from the Markdown file reads it."""
    if targets.plots is None or targets.markdown is None:
        return None
    beside = Path() if targets.markdown == STDOUT else Path(targets.markdown).parent
    return Path(os.path.relpath(targets.plots, beside)).as_posix()
