"""Every Python block of the README and the docs runs, and every curvlab command in them is one that exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("plugins/*/README.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


PYTHON = [(page, i) for page in PAGES for i in range(len(blocks(page, "python")))]


@pytest.mark.parametrize(
    ("page", "number"), PYTHON, ids=lambda v: str(v) if isinstance(v, int) else v.parent.name + "/" + v.stem
)
def test_python_blocks_run(page: Path, number: int, tmp_path: Path) -> None:
    code = blocks(page, "python")[number]
    if ">>> " in code:
        code = (
            "import sys\nfrom doctest import DocTestParser, DocTestRunner\n"
            f"test = DocTestParser().get_doctest({code!r}, {{}}, 'page', 'page', 0)\n"
            "sys.exit(DocTestRunner().run(test).failed > 0)\n"
        )
    code = code.replace("/tmp/", f"{tmp_path}/")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in [*blocks(page, "console"), *blocks(page, "sh")]:
            found += [line[2:].split("  #")[0] for line in block.splitlines() if line.startswith("$ curvlab ")]
    return sorted(set(found))


@pytest.mark.parametrize("command", commands())
def test_commands_are_parsed(command: str) -> None:
    """A command of the docs is understood: on files that are not here it fails with 1, never with 2."""
    words = shlex.split(command)[1:]
    done = subprocess.run(
        [sys.executable, "-m", "curvlab_cli", *words],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        check=False,
    )
    here = not any(name in command for name in ("model.", "mynet"))
    assert done.returncode == (0 if here else 1), done.stderr


def test_the_output_in_the_readme_is_the_output() -> None:
    """Same layers, columns and counts; measured digits may differ from machine to machine."""

    def skeleton(text: str) -> list[str]:
        without = re.sub(r"[-+±<>~]*\d[\d.,e+×%]*|∞|\s+", " ", text)
        return sorted(set(re.findall(r"[A-Za-zκλμσπ]{2,}\w*", without)))

    (shown,) = [b for b in blocks(ROOT / "README.md", "console") if "analyze examples/digits-cnn.safetensors\n" in b]
    command, _, printed = shown.partition("\n")
    done = subprocess.run(
        [sys.executable, "-m", "curvlab_cli", *shlex.split(command)[2:]],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        check=True,
    )
    assert skeleton(printed) == skeleton(done.stdout)
