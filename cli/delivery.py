"""Where a document goes: to files and stdout in the registered formats of reports, pictures to a folder, the rest to
the terminal."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from curvlab.document.writers import REPORTS, Writer
from curvlab.errors import CommandError

from .output import STDOUT, check_target, deliver, say, show

if TYPE_CHECKING:
    from curvlab.document.section import Document


@dataclass(frozen=True)
class Targets:
    """The files that a command was asked for.

    Attributes:
        files: name of a format of reports -> a path, or "-" for stdout.
        plots: folder of the pictures, None for none.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    plots: Path | None = None

    def check(self) -> None:
        """Refuse, before any work, what could not be delivered after it.

        Raises:
            CommandError: a file cannot be written, or two of them are to be stdout.
        """
        for name, path in self.files.items():
            check_target(path, f"--{name}")
        taken = [f"--{name}" for name, path in self.files.items() if path == STDOUT]
        if len(taken) > 1:
            both = " and ".join(taken)
            raise CommandError(f"{both} both ask for stdout", "only one can have it", "give one of them a file")
        if self.plots is not None and self.plots.exists() and not self.plots.is_dir():
            raise CommandError(f"--plots '{self.plots}' is a file", "the name of a folder was expected")

    def refuse(self, reason: str) -> None:
        """Refuse all but contracts, for the `reason` that there is nothing to write into them.

        Raises:
            CommandError: another file was asked for.
        """
        asked = [f"--{writer.name}" for writer, _ in self.writers() if writer.reads != "contract"]
        asked += ["--plots"] if self.plots is not None else []
        if asked:
            raise CommandError(f"{asked[0]} has nothing to show", reason, "use --json, or leave it out")

    def writers(self) -> list[tuple[Writer, str]]:
        """The writers that are asked for, with their paths."""
        return [(REPORTS[name], path) for name, path in self.files.items()]

    @property
    def stdout_is_taken(self) -> bool:
        """Whether one of the files is stdout: then nothing else is written there."""
        return STDOUT in self.files.values()

    @property
    def shown(self) -> bool:
        """Whether a person gets to read the document's sections, in a file or at the terminal."""
        return not self.stdout_is_taken or any(writer.reads == "sections" for writer, _ in self.writers())


def delivers(panel: str | None = None, *reads: str, plots: str = "") -> Callable[[Callable[..., Any]], Any]:
    """A decorator: the command has an option for every registered format of reports and gets the `targets`, checked.

    Args:
        panel: heading in the help.
        reads: parts of a document (`Writer.reads`) that this command's documents have; none stands for all.
        plots: help of the option `--plots`; none without.
    """

    def wrapped(command: Callable[..., Any]) -> Callable[..., Any]:
        writers = [writer for writer in REPORTS.values() if not reads or writer.reads in reads]
        options = {writer.name: _option(writer, panel) for writer in writers}
        if plots:
            options["plots"] = Annotated[
                Path | None, typer.Option("--plots", metavar="DIR", rich_help_panel=panel, help=plots)
            ]

        @functools.wraps(command)
        def run(*args: Any, **values: Any) -> Any:
            given = {name: values.pop(name) for name in options}
            folder = given.pop("plots", None)
            targets = Targets({name: path for name, path in given.items() if path is not None}, folder)
            targets.check()
            return command(*args, targets=targets, **values)

        hints = get_type_hints(command, include_extras=True)
        own = [one for name, one in inspect.signature(command).parameters.items() if name != "targets"]
        kind = inspect.Parameter.KEYWORD_ONLY
        made = [inspect.Parameter(name, kind, default=None, annotation=hint) for name, hint in options.items()]
        parameters = [*(one.replace(annotation=hints[one.name]) for one in own), *made]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {**{name: hint for name, hint in hints.items() if name != "targets"}, **options}
        return run

    return wrapped


def _option(writer: Writer, panel: str | None) -> Any:
    told = f"Write {writer.title}; '-' is stdout."
    option = typer.Option(f"--{writer.name}", metavar="PATH", rich_help_panel=panel, help=told)
    return Annotated[str | None, option]


def publish(document: Document, targets: Targets) -> None:
    """Files first, so that a reader who closes the pipe early loses nothing; then the terminal's report, unless stdout
    is taken; and what was drawn."""
    from curvlab.reports.terminal import print_document

    for writer, path in targets.writers():
        if writer.reads != "records" or document.records is not None:
            deliver(writer.write(document, _link(targets.plots, path)), path)
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


def _link(pictures: Path | None, path: str) -> str | None:
    """The folder of the pictures as a link from the file at `path` reads it."""
    if pictures is None:
        return None
    beside = Path() if path == STDOUT else Path(path).parent
    return Path(os.path.relpath(pictures, beside)).as_posix()
