"""A new file in a room of curvlab is found without a line anywhere else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from curvlab.registry import import_room

FILES = {
    "__init__.py": "seen = []\n\ndef register(it): seen.append(getattr(it, '__name__', it))",
    "builtin.py": "raise RuntimeError('it is what calls')",
    "b.py": "from newroom import register\n\n@register\nclass b: ...",
    "a.py": "import newroom\n\nnewroom.register('a')",
    "part.py": "raise RuntimeError('it registers nothing')",
    "paper/__init__.py": "",
    "paper/format.py": "from newroom import register\nregister('paper.format')",
    "paper/reading.py": "from newroom import register\nregister('paper.reading')",
}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, ["a", "b", "paper.format", "paper.reading"]),
        ({"first": ("paper.reading", "b")}, ["paper.reading", "b", "a", "paper.format"]),
        ({"named": "format"}, ["paper.format"]),
    ],
)
def test_every_module_is_imported_once_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, object], expected: list[str]
) -> None:
    for name, text in FILES.items():
        file = tmp_path / "newroom" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        import_room("newroom", **arguments)  # type: ignore[arg-type]
        assert sys.modules["newroom"].seen == expected
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "newroom"]:
            del sys.modules[name]
