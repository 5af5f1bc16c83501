"""The `curvlab` command: its subcommands, and what becomes of an error."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from curvlab.errors import CurvlabError, out_of_memory
from curvlab.reproducible import reproducible

from .analyze import EPILOG, analyze
from .compare import EPILOG as COMPARE_EPILOG
from .compare import compare
from .listing import list_
from .output import say
from .train import EPILOG as TRAIN_EPILOG
from .train import train

INTERRUPTED = 130

app = typer.Typer(
    name="curvlab",
    help="The microscope for the curvature of saved neural networks.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="analyze", no_args_is_help=True, epilog=EPILOG)(analyze)
app.command(name="compare", epilog=COMPARE_EPILOG)(compare)
app.command(name="train", no_args_is_help=True, epilog=TRAIN_EPILOG)(train)
app.command(name="list", no_args_is_help=True)(list_)


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(f"curvlab {importlib.metadata.version('curvlab')}")
        raise typer.Exit


@app.callback(epilog="Exit codes: 0 done, 1 the work failed, 2 wrong command line, 3 a gate said no, 130 interrupted.")
def curvlab(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The microscope for the curvature of saved neural networks."""


def run() -> None:
    """Run the command line and exit; an error is one sentence on stderr, and a bug says that it is one.

    `CURVLAB_DEBUG=1` prints the traceback before the sentence.
    """
    reproducible()  # nothing has imported torch yet
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show κ gets a question mark, not a crash
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except CurvlabError as error:
        _tell(str(error), error)
        sys.exit(error.exit_code)
    except Exception as error:
        if out_of_memory(error):
            _tell(
                "the memory ran out; --max-memory refuses what is too large before it is begun, and data needs less "
                "in fewer examples or a smaller --batch-size",
                error,
            )
            sys.exit(1)
        what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        _tell(
            f"{what}: this is a bug in curvlab; please report it with the traceback that CURVLAB_DEBUG=1 prints", error
        )
        sys.exit(1)


def _tell(sentence: str, error: Exception) -> None:
    if os.environ.get("CURVLAB_DEBUG") == "1":
        traceback.print_exception(error)
    say(sentence)
