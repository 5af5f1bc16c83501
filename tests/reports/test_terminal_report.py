"""The report for a person: it fits, it says what there is and what there is not, and no name can harm it."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from reports.analysis_fixture import analysis, layer
from rich.cells import cell_len
from rich.console import Console

from curvlab.analyses.registry import layer_analyses
from curvlab.analyses.results import BlockCoverage, Coverage
from curvlab.analyses.whitening import Whitening
from curvlab.reports.analysis import analysis_document
from curvlab.reports.terminal import print_document


def shown(result, width=100, sort="model", **console):
    out = io.StringIO()
    print_document(Console(file=out, width=width, highlight=False, **console), analysis_document(result, sort))
    return out.getvalue()


LONG = layer("encoder.layers.11.self_attention.output.dense.0123456789", "ConvTranspose2d", (2048, 1024, 7, 7), 1.23e9)
WIDE = layer("模型.层.注意力", "Linear", (20, 64), 2.0)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
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


def test_singular_features_are_shown_over_their_range():
    second = analysis().layers[1]
    singular = replace(second.moments, condition_number=Whitening(None, None, None, None, None))
    text = shown(replace(analysis(), layers=(second.having(moments=singular),)))
    assert re.findall(r"∞ \(.*?\)", text)[:4] == ["∞ (3.2e5)", "∞ (4.5e4)", "∞ (8210)", "∞ (93.8)"]


def test_the_head_tells_model_data_and_coverage():
    text = shown(analysis())
    assert "model: model.safetensors (curvlab, 1,674 parameters, network: curvlab metadata)" in text
    assert "data: digits, 1,797 examples of shape 1x8x8\n" in text
    assert "settings: likelihood cross-entropy, fisher type mc, K-FAC expand, dtype float32, seed 7\n" in text
    assert "coverage: 1,424 of 1,674 parameters analysed on data (85.1%)" in text
    assert "weights-only: head (210 parameters): its weight is not finite" in text
    assert "skipped: norm.weight, norm.bias (40 parameters): no adapter for WeirdNorm" in text
    assert "note: stripped the prefix 'module.'" in text


def test_synthetic_data_is_called_so():
    assert "SYNTHETIC" in shown(analysis(synthetic=True))
    assert "SYNTHETIC" not in shown(analysis())


def test_weights_alone():
    result = analysis(data=False)
    bare = replace(result, layers=tuple(one.having(moments=None, kfac=None, tnt=None) for one in result.layers))
    text = shown(bare)
    assert "data: none" in text
    assert "no network to run" in text
    assert "Input features" not in text
    assert "stable rank" in text
    assert "fisher type" not in text


@pytest.mark.parametrize(("runnable", "reason"), [(False, "there is no network to run"), (True, "no data was given")])
def test_weights_alone_are_covered_by_one_line_that_says_why(runnable, reason):
    result = analysis(data=False)
    blocks = tuple(BlockCoverage(f"n{place}", "weights-only", None, 2) for place in range(9))
    blank = replace(
        result, coverage=Coverage(18, 0, blocks), model={**result.model, "runnable": runnable, "architecture": None}
    )
    text = shown(blank)
    assert "coverage: 0 of 18 parameters analysed on data (0%)" in text
    assert f"  weights-only: all 9 layers (18 parameters): {reason}\n" in text


def test_kinds_that_were_inferred_come_with_what_they_were_inferred_from():
    first, second, head = analysis().layers
    layers = (
        replace(first, confidence=0.9, evidence="bias length 16 equals the first axis of weight (16, 1, 3, 3)"),
        replace(
            first, name="conv2", confidence=0.9, evidence="bias length 8 equals the first axis of weight (8, 16, 3, 3)"
        ),
        replace(second, confidence=0.5, evidence="two readings fit"),
        replace(head, confidence=1.0, evidence=None),
    )
    text = shown(replace(analysis(), layers=layers))
    assert "  Conv2d, 90%: conv1, conv2: e.g. bias length 16 equals the first axis of weight (16, 1, 3, 3)\n" in text
    assert "  Linear, 50%: fc1: two readings fit\n" in text
    assert "head" not in text.split("kinds:")[1].split("Weights")[0]
    assert "kinds:" not in shown(replace(analysis(), layers=(first, second)))


def test_a_model_without_layers_still_has_a_report():
    empty = replace(analysis(), layers=(), coverage=Coverage(0, 0, ()))
    assert "coverage: 0 of 0 parameters analysed on data (nothing)" in shown(empty)


def test_a_layer_without_results_is_not_a_row_of_dashes():
    table = shown(analysis()).split("Input features")[1]
    assert "fc1" in table
    assert "head" not in table


def orders(result, sort):
    """The names of every table from top to bottom."""
    tables = shown(result, sort=sort).split("\n\n")
    return [[line.split()[0] for line in table.splitlines()[2:]] for table in tables if "\nlayer " in f"\n{table}"]


def test_worst_first():
    def order(sort):
        return orders(analysis(), sort)[0]

    assert order("model") == ["conv1", "fc1", "head"]
    assert order("condition") == ["head", "fc1", "conv1"]
    assert order("parameters")[0] == "fc1"
    assert order("kronecker") == ["fc1", "conv1", "head"]
    assert order("name") == ["conv1", "fc1", "head"]


def factored(name, condition, over_range):
    """A layer whose A ⊗ G has these condition numbers."""
    one = layer(name, "Linear", (20, 64), 2.0)
    block = replace(one.kfac.kronecker, condition_number=condition, condition_number_nonzero=over_range)
    return one.having(kfac=replace(one.kfac, kronecker=block))


def test_the_worst_conditioned_layer_is_first_in_every_table():
    """Infinite above all, then by the range; without factors by the features, without features by the weight."""
    one = layer("plain", "Linear", (20, 64), 2.0)
    singular = replace(one.moments, condition_number=replace(one.moments.condition_number, identity=None))
    features = replace(one, name="features").having(kfac=None, tnt=None, moments=singular)
    weight = replace(features, name="weight").having(moments=None, weights=replace(one.weights, condition_number=50.0))
    unknown = replace(weight, name="unknown").having(weights=replace(one.weights, condition_number=None, rank=None))
    layers = (unknown, factored("mild", 3.0, 3.0), weight, factored("wide", None, 1e9), factored("bad", 1e12, 1e12))
    result = replace(analysis(), layers=(*layers, factored("narrow", None, 7.0), features))
    worst = ["wide", "narrow", "features", "bad", "weight", "mild", "unknown"]
    tables = orders(result, "condition")
    assert len(tables) == 3
    assert tables[0] == worst
    assert tables[1] == [name for name in worst if name not in ("weight", "unknown")]
    assert tables[2] == [name for name in worst if name not in ("weight", "unknown", "features")]


@pytest.mark.parametrize("name", ["identity", "lnb"])
def test_singular_features_are_ordered_by_their_range(name):
    def singular(title, over_range):
        one = layer(title, "Linear", (20, 64), 2.0)
        table = replace(one.moments.condition_number, **{name: None})
        ranges = replace(one.moments.condition_number_nonzero, **{name: over_range})
        return one.having(moments=replace(one.moments, condition_number=table, condition_number_nonzero=ranges))

    result = replace(analysis(), layers=(singular("a", 10.0), singular("b", 1e7), layer("c", "Linear", (2, 2), 1e9)))
    assert orders(result, name)[0] == ["b", "a", "c"]


def test_an_unknown_condition_is_not_called_infinite():
    one = layer("x", "Linear", (20, 64), 2.0)
    bare = one.having(moments=None, kfac=None, tnt=None, weights=replace(one.weights, condition_number=None))
    assert "∞ " in shown(replace(analysis(), layers=(bare,))).split("Weights:")[0]
    unknown = bare.having(weights=replace(bare.weights, rank=None))
    assert "∞ " not in shown(replace(analysis(), layers=(unknown,))).split("Weights:")[0]


def test_the_legend_explains_every_column_that_is_there_and_no_other():
    text = shown(analysis())
    legend = text[text.index("\nWeights: ") :]
    done = [one.quantities for one in layer_analyses() if one.by_default]
    titles = [quantity.title for quantities in done for quantity in quantities]
    assert len(titles) == 22
    for title in titles:
        assert (f" {title}" in " ".join(legend.split())) == (title not in ("twins", "tokens")), title


def test_numbers_of_a_column_end_where_numbers_end():
    """With errors of other lengths beside them, with none, and with none of them."""
    errors = {"a": 0.002, "b": 0.4, "c": 30.0, "d": None}
    layers = []
    for name, error in errors.items():
        one = layer(name, "Linear", (20, 64), 12.25)
        stderr = {"condition_number": {"identity": error and error * 12.25}}
        layers.append(one.having(moments=replace(one.moments, stderr=stderr), kfac=None, tnt=None))
    text = shown(replace(analysis(), layers=tuple(layers)))
    rows = [line for line in text.split("Input features")[1].splitlines() if line[:1] in errors and " 12.2" in line]
    assert [re.search(r"12\.2( ±\S+)?", row)[0] for row in rows] == ["12.2 ±<1%", "12.2 ±40%", "12.2 ±>100%", "12.2"]
    assert len({row.index("12.2") for row in rows}) == 1


def test_no_line_ends_in_blanks_but_those_of_tables():
    text = shown(analysis(extra=(LONG,)), 60)
    assert [
        line for line in text.splitlines() if line.endswith(" ") and line.startswith(("data", "settings", " "))
    ] == []


def test_among_singular_layers_the_wider_range_is_worse():
    other = layer("fc2", "Linear", (20, 64), None)
    worse = replace(other.kfac.kronecker, condition_number_nonzero=1e9)
    result = analysis(extra=(other.having(kfac=replace(other.kfac, kronecker=worse)),))
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
    text = shown(replace(result, coverage=replace(result.coverage, blocks=(result.coverage.blocks[0], *many))))
    assert "n* × 50 (1,000 parameters)" in " ".join(text.split())
