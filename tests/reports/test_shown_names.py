"""Names in little room: no two rows look alike, what all share is said once, and a name can be read back."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from curvlab.analyses.condition_figure import condition_figure
from curvlab.comparison.agreement import Agreement
from curvlab.comparison.results import Comparison, Directions
from curvlab.document.section import Document, Section
from curvlab.document.table import Column, Group, Table
from curvlab.reports.comparison import comparison_document
from curvlab.reports.plots import picture
from curvlab.reports.plots_page import safe_names, safe_ticks
from curvlab.reports.shown_names import LEAST, shown_names
from curvlab.reports.terminal import print_document

LLAMA = [
    "model.embed_tokens",
    *(
        f"model.layers.{layer}.{part}"
        for layer in range(32)
        for part in (
            *(f"self_attn.{which}_proj" for which in "qkvo"),
            *(f"mlp.{which}_proj" for which in ("gate", "up", "down")),
            "input_layernorm",
            "post_attention_layernorm",
        )
    ),
    "model.norm",
    "lm_head",
]
LORA = [
    f"base_model.model.model.layers.{layer}.self_attn.{which}_proj.lora_update.default"
    for layer in range(12)
    for which in "qkvo"
]
EXPERTS = [
    f"model.layers.{layer}.mlp.experts.{expert}.{which}_proj"
    for layer in range(4)
    for expert in range(30)
    for which in ("gate", "up", "down")
]
WORDS = st.sampled_from(
    ["layers", "0", "1", "11", "q_proj", "attention", "weight", "a", "…", "#1", "模型", "é", "\x1b"]
)
NAMES = st.lists(st.lists(WORDS, min_size=1, max_size=9).map(".".join) | st.text(max_size=30), unique=True, max_size=40)


@settings(max_examples=150, deadline=None)
@given(NAMES, st.integers(1, 40))
@example(["\x1b", "\\x1b"], 30)
@example(["a.b", "a.c", "…b"], LEAST)
@example([f"{'x' * 40}{k}{'y' * 40}" for k in range(30)], 20)
def test_no_two_names_look_alike_and_all_fit(names: list[str], room: int) -> None:
    shown = shown_names(names, room)
    assert list(shown.texts) == names
    assert len(set(shown.texts.values())) == len(names)
    assert all(text.isprintable() for text in shown.texts.values())
    if any(cell_len(text) > room for text in names):
        assert all(cell_len(text) <= max(room, LEAST) or text in names for text in shown.texts.values())


@pytest.mark.parametrize("names", [LLAMA, LORA, EXPERTS], ids=["llama", "lora", "experts"])
@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_rows_of_a_table_are_told_apart_at_every_width(names: list[str], width: int) -> None:
    values = tuple(str(1000 + place) for place in range(len(names)))
    table = Table(tuple(names), (Group("Weights", (Column("number", values), Column("other", values))),))
    out = io.StringIO()
    document = Document("", (Section((table,)),), dict)
    print_document(Console(file=out, width=width), document)
    lines = out.getvalue().splitlines()
    rows = [line.split()[0] for line in lines if line.strip().endswith(values)]
    assert len(rows) == len(names)
    assert len(set(rows)) == len(names)
    assert max(map(cell_len, lines)) <= width


def test_what_names_share_is_said_once() -> None:
    shown = shown_names(LLAMA, 30)
    assert shown.note() == "… is model.layers."
    assert shown.texts["model.layers.10.self_attn.q_proj"] == "…10.self_attn.q_proj"
    assert shown.texts["lm_head"] == "lm_head"
    inner = shown_names([name for name in LLAMA if "self_attn" in name], 30)
    assert inner.note() == "in model.layers."
    assert inner.texts["model.layers.3.self_attn.k_proj"] == "3.self_attn.k_proj"
    lora = shown_names(LORA, 24)
    assert lora.note() == "in base_model.model.model.layers.….lora_update.default"
    assert lora.texts[LORA[0]] == "0.self_attn.q_proj"


def test_short_names_stay_whole() -> None:
    assert shown_names(["net.0", "net.2"], 14).texts == {"net.0": "net.0", "net.2": "net.2"}
    assert shown_names(["net.0", "net.2"], 14).note() == ""


def test_the_part_that_differs_is_what_stays() -> None:
    texts = shown_names([f"encoder.{part}.projection.weight_matrix" for part in ("queries", "keys")], 16).texts
    assert list(texts.values()) == ["queries", "keys"]
    deep = shown_names([f"{'x' * 30}.{k}.{'y' * 30}.z{k % 2}" for k in range(8)], 20).texts.values()
    assert len(set(deep)) == 8


@pytest.mark.parametrize(
    "make",
    [lambda k: f"{'.' * 2000}{k}{'.' * 2000}", lambda k: f"{'x' * 2000}{k:05d}{'y' * 2000}", lambda k: f"a.{k}" * 800],
    ids=["dots", "middles", "repeats"],
)
def test_names_that_are_made_to_take_long_do_not(make: Callable[[int], str]) -> None:
    names = [make(k) for k in range(2000)]
    started = time.process_time()
    texts = shown_names(names, 14).texts
    assert len(set(texts.values())) == 2000
    assert time.process_time() - started < 10


def test_tables_of_ten_thousand_rows_take_a_second_and_not_a_minute() -> None:
    names = tuple(f"model.layers.{k // 100}.experts.{k % 100}.up_proj" for k in range(10_000))
    values = tuple(map(str, range(10_000)))
    table = Table(names, (Group("Weights", tuple(Column(f"c{k}", values) for k in range(8))),))
    out, started = io.StringIO(), time.process_time()
    print_document(Console(file=out, width=100), Document("", (Section((table,)),), dict))
    assert time.process_time() - started < 10  # rich's own table: 15 s and more
    assert len(out.getvalue().splitlines()) == 10_002


@settings(max_examples=60, deadline=None)
@given(NAMES, st.integers(1, 40))
def test_no_two_ticks_or_legends_look_alike(names: list[str], room: int) -> None:
    ticks, _ = safe_ticks(names, room)
    legends = safe_names(names, room)
    assert len(set(ticks)) == len(names) == len(set(legends.values()))
    assert all("$" not in text.replace(r"\$", "") for text in [*ticks, *legends.values()])


@pytest.mark.parametrize("names", [LLAMA, LORA], ids=["llama", "lora"])
def test_ticks_of_a_picture_are_told_apart(names: list[str]) -> None:
    figure = condition_figure(names, {"weight": [(1.0 + k, False) for k in range(len(names))]}, "weights")
    assert figure is not None
    drawn = picture(figure)
    (area,) = drawn.axes
    ticks = [label.get_text() for label in area.get_xticklabels()]
    assert len(ticks) == len(set(ticks)) == 40
    assert "layers." in area.get_xlabel()


def test_of_many_layers_the_worst_are_drawn() -> None:
    names = [f"h.{k}.w" for k in range(100)]
    values: list[tuple[float | None, bool]] = [(float((37 * k) % 100), False) for k in range(100)]
    values[1] = (None, False)
    figure = condition_figure(names, {"a": values, "b": [(1.0, True)] * 100}, "weights")
    assert figure is not None
    (panel,) = figure.panels
    drawn = [name for _, name in panel.x.ticks or ()]
    assert drawn == [name for k, name in enumerate(names) if (37 * k) % 100 >= 60]
    assert panel.bars[0].values == tuple(float((37 * int(name[2:-2])) % 100) for name in drawn)
    assert "the worst 40 of 100 layers" in panel.title


@pytest.mark.parametrize("names", [LLAMA[:60], LORA], ids=["llama", "lora"])
@pytest.mark.parametrize("width", [60, 100])
def test_columns_of_a_comparison_are_told_apart(names: list[str], width: int) -> None:
    one = Agreement(dict.fromkeys(names, 0.5), 0.5, dict.fromkeys(names, 0.5), 0.5, 0.5)
    found = {"kfac": Directions("kfac", {"damping": 0.1}, (one,))}
    data = {"source": "nowhere", "batch_size": 7}
    comparison = Comparison("p", "block-fisher", 1, (1,), found, None, 0, {}, data, {})
    out = io.StringIO()
    print_document(Console(file=out, width=width), comparison_document(comparison))
    lines = out.getvalue().splitlines()
    headings = [line.split()[1:] for line in lines if line.startswith("optimizer ")][1:]
    shown = [name for heading in headings for name in heading]
    assert len(shown) == len(set(shown)) == len(names)
    assert any("model.layers." in line for line in lines)
