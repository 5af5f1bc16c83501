"""`curvlab --help` beside the imports of typer and rich that it cannot do without, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from benchmarks.targets import Target
from benchmarks.timing import alternate, show

IMPORTS = "import typer, rich.console, rich.table, rich.panel, rich.markdown"
HELP = "import sys; sys.argv = ['curvlab', '--help']; from curvlab_cli.main import run; run()"


def process(program: str) -> Callable[[], object]:
    """A fresh interpreter that runs the program."""
    return lambda: subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def measure(rounds: int) -> list[Target]:
    """Time whole processes and print the table."""
    rows = alternate(
        {
            "python -c pass": process("pass"),
            "imports of typer and rich": process(IMPORTS),
            "curvlab --help": process(HELP),
        },
        rounds,
    )
    show("Start of the command line (whole processes)", rows, {})
    return [Target("curvlab --help, relative to the imports of typer and rich", rows[2].seconds / rows[1].seconds, 2.0)]
