"""The report for a person: it fits, it says what there is and what there is not, and no name can harm it."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from reports.analysis_fixture import analysis, layer
from rich.cells import cell_len
from rich.console import Console

from curvlab.analyses.results import Coverage
from curvlab.reports.terminal import print_analysis


def shown(result, width=100, sort="model", **console):
    out = io.StringIO()
    print_analysis(Console(file=out, width=width, highlight=False, **console), result, sort)
    return out.getvalue()


LONG = layer("encoder.layers.11.self_attention.output.dense.0123456789", "ConvTranspose2d", (2048, 1024, 7, 7), 1.23e9)
WIDE = layer("模型.层.注意力", "Linear", (20, 64), 2.0)


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("extra", [(), (LONG,), (WIDE,), (LONG, WIDE)])
def test_no_line_is_wider_than_asked_for(width, extra):
    assert max(cell_len(line) for line in shown(analysis(extra=extra), width).splitlines()) <= width


def test_every_number_of_interest_is_there():
    text = shown(analysis())
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    for part in (
        "12.2 ±10%",
        "4.5e4",
        "8210",
        "93.8 ±5%",
        "1.2e4 ±4%",
        "310 · 12.2",
        "5.31",
        "14.2",
        "1530",
        "2.75",
        "65/65",
    ):
        assert part in text, part
    assert "∞ (3.2e5)" in lines["fc1"]
    assert "91.5%" not in lines["fc1"]
    assert "16x1x3x3" in text
    assert "2,704" not in lines["conv1"]


def test_the_head_tells_model_data_and_coverage():
    text = shown(analysis())
    assert "model: model.safetensors (curvlab, 1,674 parameters, network: curvlab metadata)" in text
    assert "data: digits, 1,797 examples of shape 1x8x8 (cross-entropy, mc, expand, float32, seed 7)" in text
    assert "coverage: 1,424 of 1,674 parameters analysed (85.1%)" in text
    assert "weights-only: head (210 parameters): its weight is not finite" in text
    assert "skipped: norm.weight, norm.bias (40 parameters): no adapter for WeirdNorm" in text
    assert "note: stripped the prefix 'module.'" in text


def test_synthetic_data_is_called_so():
    assert "SYNTHETIC" in shown(analysis(synthetic=True))
    assert "SYNTHETIC" not in shown(analysis())


def test_weights_alone():
    result = analysis(data=False)
    bare = replace(result, layers=tuple(replace(one, moments=None, kfac=None, tnt=None) for one in result.layers))
    text = shown(bare)
    assert "data: none" in text
    assert "no network to run" in text
    assert "Input features" not in text
    assert "stable rank" in text


def test_a_model_without_layers_still_has_a_report():
    empty = replace(analysis(), layers=(), coverage=Coverage(0, 0, ()))
    assert "coverage: 0 of 0 parameters analysed (nothing)" in shown(empty)


def test_a_layer_without_results_is_not_a_row_of_dashes():
    table = shown(analysis()).split("Input features")[1]
    assert "fc1" in table
    assert "head" not in table


def test_worst_first():
    def order(sort):
        table = shown(analysis(), sort=sort).split("Weights")[1].split("Input features")[0]
        return [line.split()[0] for line in table.splitlines()[2:] if line.strip()]

    assert order("model") == ["conv1", "fc1", "head"]
    assert order("condition") == ["head", "fc1", "conv1"] or order("condition") == ["fc1", "head", "conv1"]
    assert order("parameters")[0] == "fc1"
    assert order("kronecker") == ["fc1", "conv1", "head"]
    assert order("name") == ["conv1", "fc1", "head"]


def test_among_singular_layers_the_wider_range_is_worse():
    other = layer("fc2", "Linear", (20, 64), None)
    worse = replace(other.kfac.kronecker, condition_number_nonzero=1e9)
    result = analysis(extra=(replace(other, kfac=replace(other.kfac, kronecker=worse)),))
    text = shown(result, sort="kronecker")
    assert text.index("\nfc2") < text.index("\nfc1")


@pytest.mark.parametrize(
    "hostile", ["\x1b[2J", "\x9b31m", "a\nb\rc", "\u202eevil", "[bold red]x[/]", ":warning:", "\ud800"]
)
def test_names_are_shown_and_not_obeyed(hostile):
    text = shown(replace(analysis(extra=(layer(hostile, "Linear", (2, 2), 3.0),)), notes=(hostile,)))
    assert set(text) - {"\n"} == {c for c in text if c.isprintable()}
    for plain in ("[bold red]x[/]", ":warning:"):
        assert (plain in text) == (hostile == plain)
    assert len(text.splitlines()) == len(shown(analysis(extra=(layer("x", "Linear", (2, 2), 3.0),))).splitlines())


def test_colour_is_only_for_terminals_and_never_with_no_color(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" not in shown(analysis())
    assert "\x1b[1;33m" in shown(analysis(synthetic=True), force_terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "33m" not in shown(analysis(synthetic=True), force_terminal=True)


def test_many_blocks_with_one_reason_are_one_line():
    result = analysis()
    many = tuple(replace(result.coverage.blocks[-1], name=f"n{place}") for place in range(50))
    text = shown(replace(result, coverage=replace(result.coverage, blocks=many)))
    assert "n0, n1, n2, n3, n4, n5 and 44 more (1,000 parameters)" in " ".join(text.split())
