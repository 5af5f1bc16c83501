"""Markdown: every document shows in it whole, and no name from a file is obeyed."""

from __future__ import annotations

import re

import pytest
from reports.analysis_fixture import analysis, layer

from curvlab.document.figure import Figure, Panel
from curvlab.document.section import Document, Note, Section
from curvlab.document.table import Column, Group, Table
from curvlab.reports.analysis import analysis_document
from curvlab.reports.writers.markdown import markdown, to_markdown


def test_an_analysis_has_a_table_for_each_title() -> None:
    text = to_markdown(analysis_document(analysis()))
    assert text.startswith("# Analysis of model.safetensors\n\n- **model:** model.safetensors (curvlab, ")
    assert re.findall("^### .*", text, re.MULTILINE) == [
        "### Weights",
        "### Input features, M = E\\[āāᵀ\\]",
        "### Curvature factors",
    ]
    rows = [line for line in text.splitlines() if line.startswith("| conv1 |")]
    assert len(rows) == 3
    assert "12.2 ±10%" in rows[1]
    assert len([line for line in text.splitlines() if line.startswith("| head |")]) == 1  # it has weights alone
    assert "- **note:** stripped the prefix 'module.'" in text
    assert "**SYNTHETIC, not measurements:**" in to_markdown(analysis_document(analysis(synthetic=True)))


def test_every_row_of_a_table_has_the_cells_of_its_heading() -> None:
    document = Document("t", (Section((Table(("a|b", "c"), (Group("", (Column("x|y", ("1|2", "3")),)),)),)),), dict)
    lines = [line for line in to_markdown(document).splitlines() if line.startswith("|")]
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {4}
    assert lines[1] == "| --- | ---: |"


@pytest.mark.parametrize(
    "hostile",
    ["[click](http://evil)", "<script>x</script>", "![x](y)", "`code`", "**bold**", "a\n# heading", "| cell |",
     "https://evil.example", "www.evil.example", "&lt;", "\x1b[2J", "\u202eevil", "$x$", "~~gone~~", "@team"],
)  # fmt: skip
def test_names_are_shown_and_not_obeyed(hostile: str) -> None:
    shown = markdown(hostile)
    assert "\n" not in shown
    assert shown.isprintable()
    for character in "[]<>`*|$~&":
        assert not re.search(rf"(?<!\\)\{character}", shown), character
    assert "http://" not in shown
    assert "https://" not in shown
    assert "www." not in shown
    text = to_markdown(analysis_document(analysis(extra=(layer(hostile, "Linear", (2, 2), 3.0),))))
    assert f"| {shown} |" in text
    assert len(re.findall("^# ", text, re.MULTILINE)) == 1


def test_pictures_are_linked_where_they_were_drawn() -> None:
    document = Document("t", (Section((Note("n"), Figure("loss", (Panel(),), "Loss"))),), dict)
    assert "![Loss](<plots/loss.svg>)" in to_markdown(document, "plots")
    assert "loss" not in to_markdown(document)


def test_sections_headings_and_captions() -> None:
    table = Table(("a",), (Group("G", (Column("x", ("1",)),)),), caption="what x is")
    notes = (Note("one", "label"), Note("below", depth=1), Note("head", tone="heading"))
    text = to_markdown(Document("t", (Section((*notes, table), "Title"),), dict))
    assert text == (
        "# t\n\n## Title\n\n- **label:** one\n  - below\n\n## head\n\n### G\n\n"
        "| layer | x |\n| --- | ---: |\n| a | 1 |\n\nwhat x is\n"
    )
