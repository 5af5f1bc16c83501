"""Tables and figures of directions, for one layer and many, one step and several, with numbers that are missing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from curvlab.comparison.agreement import Agreement
from curvlab.comparison.results import Comparison, Directions
from curvlab.reports.comparison import comparison_document
from curvlab.reports.direction_figures import direction_figures
from curvlab.reports.plots import draw
from curvlab.reports.terminal import print_document


def made(layers: int, steps: int, swept: bool = False) -> Comparison:
    def one(value: float | None) -> Agreement:
        names = [f"layer{k}" for k in range(layers)]
        return Agreement(dict.fromkeys(names, value), value, dict.fromkeys(names, value), value, value)

    points = tuple({"value": v, "mean": 0.5, "cosine": {"layer0": 0.5}} for v in (0.01, 0.1)) if swept else ()
    found = {
        "kfac": Directions("kfac", {"damping": 0.1}, tuple(one(0.25) for _ in range(steps)), {}, points),
        "\x1b[31mred": Directions("sgd", {}, tuple(one(None) for _ in range(steps))),
    }
    reference = Directions("block-fisher", {"damping": 0.2}, tuple(one(0.5) for _ in range(steps)), {}, points)
    data = {"source": "nowhere", "batch_size": 7}
    at = tuple(range(1, steps + 1))
    return Comparison("p", "block-fisher", steps, at, found, reference, 0, {}, data, {}, notes=("remember",))


def printed(comparison: Comparison, width: int = 100) -> str:
    text = io.StringIO()
    print_document(Console(file=text, width=width), comparison_document(comparison))
    return text.getvalue()


def test_the_table_has_means_shares_and_notes() -> None:
    text = printed(made(2, 3, swept=True))
    (row,) = [line for line in text.splitlines() if line.startswith("kfac") and "λ" in line]
    assert row.split() == ["kfac", "λ", "0.100", "0.250", "0.250", "0.250", "0.250", "0.500", "▃▃▃"]
    assert "note: remember" in text
    assert "Mean cosine by damping" in text
    assert "\x1b" not in text
    (red,) = [line for line in text.splitlines() if "red" in line and "×" in line]
    assert red.split()[-6:] == ["–", "–", "–", "–", "–", "×××"]


@pytest.mark.parametrize("width", [60, 100])
def test_many_layers_are_in_several_tables_that_fit(width: int) -> None:
    text = printed(made(30, 1), width)
    assert max(map(len, text.splitlines())) <= width
    assert all(f"layer{k}" in text for k in range(30))
    assert "along the way" not in text


@pytest.mark.parametrize(("layers", "steps", "swept"), [(1, 1, False), (4, 5, True), (20, 2, False)])
def test_figures(layers: int, steps: int, swept: bool, tmp_path: Path) -> None:
    paths = draw(direction_figures(made(layers, steps, swept)), tmp_path)
    stems = {"cosine", "cosine-by-damping"} if swept else {"cosine"}
    assert {path.name for path in paths} == {f"{stem}{end}" for stem in stems for end in (".png", ".svg")}
    svg = (tmp_path / "cosine.svg").read_text()
    assert "\x1b" not in svg
    assert ("layer16" in svg) is False
