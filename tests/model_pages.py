"""docs/models.md: its folders are made, its commands run, and what they print is what the page shows.

python tests/model_pages.py      writes what they print into the page
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "models.md"
_CONSOLE = re.compile(r"```console\n(\$ [^\n]*\n)(.*?)```", re.DOTALL)


def make_folders(place: Path) -> Path:
    """The folders of the page, below `place`."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    subprocess.run(
        [sys.executable, "-c", code.replace("/tmp/", f"{place}/")], cwd=ROOT, check=True, capture_output=True
    )
    return place / "models"


def shown() -> dict[str, str]:
    """Command -> what the page shows of it."""
    return {command[2:].strip(): output for command, output in _CONSOLE.findall(PAGE.read_text())}


def printed(command: str, place: Path) -> str:
    """What the command prints in that folder."""
    words = shlex.split(command)[1:]
    done = subprocess.run(
        [sys.executable, "-m", "curvlab_cli", *words], cwd=place, check=True, capture_output=True, text=True
    )
    return done.stdout


def rewrite() -> None:
    """Put what the commands print today into the page."""
    with tempfile.TemporaryDirectory() as folder:
        place = make_folders(Path(folder))
        text = _CONSOLE.sub(
            lambda found: f"```console\n{found[1]}{printed(found[1][2:].strip(), place)}```", PAGE.read_text()
        )
    PAGE.write_text(text)


if __name__ == "__main__":
    rewrite()
