"""What is promised to whoever adds something: one file each, named by one entry point, within these lines of code.

That what the files add is then found everywhere is shown where they are installed: `test_example_package.py` (analysis,
curvature, layer, format of reports), `cli/test_own_optimizer.py` and `formats/test_format_plugins.py`.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
from formats.test_format_plugins import MINE
from test_example_package import BRINGS, PACKAGE

from curvlab.plugins import load

TESTS = Path(__file__).parent
LINES = {
    "curvatures": (PACKAGE / "diagonal.py", 15),
    "layers": (PACKAGE / "centred.py", 40),
    "analyses": (PACKAGE / "sparsity.py", 40),
    "reports": (PACKAGE / "outline.py", 15),
    "optimizers": (TESTS / "packages" / "signs" / "curvlab_signs.py", 25),
}
"""Entry-point group -> an example of what it takes, and the lines that it may have beyond docstrings and imports."""


def code_lines(source: str) -> int:
    """Lines of a module beyond its docstrings, comments, imports and blank lines."""
    tree = ast.parse(source)
    free: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        ):
            free.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(1 for number, line in lines if number not in free and line.strip() and not line.strip().startswith("#"))


@pytest.mark.parametrize("group", LINES)
def test_an_addition_is_as_short_as_promised(group: str) -> None:
    path, most = LINES[group]
    assert code_lines(path.read_text()) <= most


def test_the_lines_that_count() -> None:
    """The counter itself: of these seven lines, two."""
    assert code_lines('"""A\nB."""\nimport x\n\n# c\nclass A:\n    def f(self): ...\n') == 2


def test_a_package_adds_each_thing_by_one_file_and_nothing_else() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules == set(BRINGS.values())
    assert len(ast.parse((PACKAGE / "__init__.py").read_text()).body) == 1  # its docstring
    assert [path.name for path in (TESTS / "packages" / "signs").glob("*.py")] == ["curvlab_signs.py"]
    assert code_lines(MINE) <= 40  # of a format: detect, read and network


def test_curvlabs_own_things_take_the_same_way() -> None:
    """Every room that something can be added to has an entry-point group, with curvlab's own module in it."""
    project = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["project"]
    groups = {name.removeprefix("curvlab."): points for name, points in project["entry-points"].items()}
    assert groups.keys() == {*LINES, "formats", "problems"}
    for name, points in groups.items():
        assert list(points) == ["builtin"]
        assert [plugin.error for plugin in load(f"curvlab.{name}") if plugin.name == "builtin"] == [None]
