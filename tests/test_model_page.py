"""docs/models.md: every command of the page works on the folders that the page makes, and prints what it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import copies
import model_pages
import pytest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_pages.make_folders(tmp_path_factory.mktemp("page"))


def skeleton(text: str) -> list[str]:
    """Words: layers, columns, notes; measured digits may differ from machine to machine.

    Random weights are about as good as chance, and the sentence on that says in which regard they are not better.
    """
    text = re.sub(
        r"^score: [^\n]*$|^note: the model is no better than chance.*?(?=^note: |\Z)", "", text, flags=re.M | re.S
    )
    without = re.sub(r"[-+±<>~]*\d[\d.,e+×%]*|∞|\s+", " ", text)
    return sorted(re.findall(r"[A-Za-zκλμσπ]{2,}\w*", without))


@pytest.mark.parametrize("command", model_pages.shown())
def test_a_command_prints_what_the_page_shows(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # xdist's workers have it
    done = copies.run("-m", "curvlab_cli", *shlex.split(command)[1:], cwd=place, timeout=300)
    assert done.returncode == 0, done.stderr
    assert skeleton(done.stdout) == skeleton(model_pages.shown()[command]), (
        "python tests/model_pages.py writes the page"
    )
