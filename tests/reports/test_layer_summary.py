"""Models of many layers: a screen that names the worst ones with numbers that numpy confirms; files hold all rows."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from reports.analysis_fixture import analysis, layer
from rich.console import Console

from curvlab.analyses.layer_summary import summaries, summary_entries
from curvlab.analyses.name_patterns import MOST_PATTERNS, by_pattern, named, place_of
from curvlab.analyses.results import Analysis, LayerResult
from curvlab.reports.analysis import FIRST, MOST_ROWS, analysis_document
from curvlab.reports.terminal import print_document
from curvlab.reports.writers.csv import records_as_csv
from curvlab.reports.writers.markdown import to_markdown

PARTS = ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj")


def weight_layer(name: str, condition: float | None, share: float = 0.5, nonfinite: int = 0) -> LayerResult:
    one = layer(name, "Linear", (20, 64), 2.0)
    changes = {"condition_number": condition, "effective_rank": 20 * share, "size": 20, "nonfinite": nonfinite}
    found = replace(one.weights, **changes, **({"rank": None} if nonfinite else {}))
    return replace(one, results={"weights": found})


def llama(layers: int = 32) -> tuple[Analysis, dict[str, list[float]]]:
    """A weights profile and, by part, the condition numbers it was made of."""
    random = np.random.default_rng(0)
    numbers = {part: list(10 ** random.uniform(0, 6, layers)) for part in PARTS}
    rows = [weight_layer("model.embed_tokens", 7.0)]
    for depth in range(layers):
        rows += [weight_layer(f"model.layers.{depth}.{part}", numbers[part][depth]) for part in PARTS]
    return replace(analysis(data=False), layers=(*rows, weight_layer("lm_head", 5.0))), numbers


def shown(result: Analysis, width: int = 100, **options: object) -> str:
    out = io.StringIO()
    print_document(Console(file=out, width=width, highlight=False), analysis_document(result, **options))
    return out.getvalue()


def test_every_pattern_has_its_median_its_worst_and_where_that_is() -> None:
    result, numbers = llama()
    text = shown(result, 140)
    for part, values in numbers.items():
        (row,) = [line for line in text.splitlines() if re.match(rf"\S*{re.escape(part)} +32 ", line)]
        median, worst, place = row.split()[3:6]
        assert float(median) == pytest.approx(np.median(values), rel=0.05)
        assert float(worst) == pytest.approx(max(values), rel=0.05)
        assert int(place) == int(np.argmax(values))


def test_the_curve_over_the_depth_has_the_worst_of_neighbours() -> None:
    result, numbers = llama(32)
    (row,) = [line for line in shown(result, 140).splitlines() if "mlp.up_proj" in line and " 32 " in line]
    curve = row.split()[6]
    values = np.array(numbers["mlp.up_proj"]).reshape(16, 2).max(1)
    assert len(curve) == 16
    assert curve[values.argmax()] == "█"
    assert curve[values.argmin()] == "▁"


def test_the_worst_ten_are_in_order_and_not_finite_ones_first() -> None:
    result, _ = llama()
    rows = list(result.layers)
    rows[5] = weight_layer(rows[5].name, None, nonfinite=3)
    rows[9] = weight_layer(rows[9].name, None)
    text = shown(replace(result, layers=tuple(rows)), 140)
    worst = text.split("Worst layers")[1].split("\n\n")[0].splitlines()[2:]
    assert [int(line.split()[0]) for line in worst] == list(range(1, 11))
    names = [line.split()[1].removeprefix("…") for line in worst]
    assert rows[5].name.endswith(names[0])
    assert "3 nonfinite" in worst[0]
    assert rows[9].name.endswith(names[1])
    assert "∞" in worst[1]
    known = {one.name: one.weights.condition_number for one in rows if one.weights.condition_number}
    best = sorted(known, key=known.get, reverse=True)[:8]
    assert [full.endswith(name) for full, name in zip(best, names[2:], strict=True)] == [True] * 8


def test_a_screen_is_enough_and_says_where_the_rest_is() -> None:
    result, _ = llama()
    text = shown(result)
    assert len(text.splitlines()) <= 60
    assert f"--all prints the rows of all {len(result.layers)} layers" in text
    assert "tail α" not in text
    everything = shown(result, every=True)
    rows = {line.split()[0] for line in everything.splitlines() if " Linear " in line}
    assert len(rows) == len(result.layers)
    assert "--all" not in everything


def test_thousands_of_experts_are_a_screen() -> None:
    values = np.random.default_rng(1).uniform(1, 9, 5760)
    names = [f"model.layers.{k // 180}.experts.{k // 3 % 60}.{'abc'[k % 3]}" for k in range(5760)]
    rows = tuple(weight_layer(name, value) for name, value in zip(names, values, strict=True))
    text = shown(replace(analysis(data=False), layers=rows))
    assert len(text.splitlines()) <= 40
    worst = int(values.argmax())
    assert f"{worst // 180}.{worst // 3 % 60}" in text


def test_up_to_forty_layers_the_table_is_the_table() -> None:
    rows = tuple(weight_layer(f"layers.{k}.proj", 2.0 + k) for k in range(MOST_ROWS))
    text = shown(replace(analysis(data=False), layers=rows))
    assert "pattern" not in text
    assert sum(" Linear " in line for line in text.splitlines()) == MOST_ROWS


def test_a_sorted_table_shows_its_first_rows() -> None:
    result, _ = llama()
    text = shown(result, sort="condition")
    rows = [line for line in text.splitlines() if " Linear " in line]
    assert len(rows) == FIRST
    known = sorted((one.weights.condition_number for one in result.layers), reverse=True)
    assert float(rows[0].split()[7]) == pytest.approx(known[0], rel=0.05)
    assert f"the first {FIRST} by condition" in text


def test_markdown_and_csv_hold_every_row() -> None:
    result, _ = llama()
    document = analysis_document(result)
    text = to_markdown(document)
    assert "Weights by pattern" in text
    assert "--all" not in text
    for one in result.layers:
        assert f"| {one.name.replace('_', chr(92) + '_')} | Linear " in text
    rows = list(csv.DictReader(io.StringIO(records_as_csv(document))))
    assert [row["name"] for row in rows] == [one.name for one in result.layers]


def test_the_json_has_the_same_summary() -> None:
    result, numbers = llama()
    rows = list(result.layers)
    rows[1] = weight_layer(rows[1].name, None)
    document = replace(result, layers=tuple(rows)).to_dict()
    assert len(document["layers"]) == len(result.layers)
    entries = {entry["pattern"]: entry for entry in document["summary"]}
    assert list(entries) == ["model.embed_tokens", *(f"model.layers.*.{part}" for part in PARTS), "lm_head"]
    up = entries["model.layers.*.mlp.up_proj"]
    assert (up["layers"], up["kinds"], up["parameters"]) == (32, ["Linear"], 32 * 1280)
    found = up["quantities"]["weights.condition_number"]
    assert found["median"] == pytest.approx(np.median(numbers["mlp.up_proj"]), rel=1e-12)
    assert found["worst"] == max(numbers["mlp.up_proj"])
    assert found["layer"] == f"model.layers.{np.argmax(numbers['mlp.up_proj'])}.mlp.up_proj"
    assert (found["infinite"], found["missing"]) == (0, 0)
    query = entries["model.layers.*.self_attn.q_proj"]["quantities"]["weights.condition_number"]
    assert (query["worst"], query["layer"], query["infinite"]) == (None, "model.layers.0.self_attn.q_proj", 1)


def test_every_analysis_has_its_columns_and_lists() -> None:
    rows = tuple(layer(f"blocks.{k}.fc", "Linear", (20, 64), 2.0 + k) for k in range(50))
    text = shown(replace(analysis(), layers=rows), 200)
    for title in ("κ(W)", "κ(M)", "rank(M)", "κ(G⊗A)", "κ(TN)"):
        assert f" {title}" in text.split("Worst layers")[0]
    assert "largest κ(G⊗A)" in text
    assert "lowest rank(M)" not in text  # all are of full rank


def test_singular_layers_have_a_curve_over_their_range() -> None:
    def singular(name: str, over_range: float) -> LayerResult:
        one = weight_layer(name, None)
        return one.having(weights=replace(one.weights, condition_number_nonzero=over_range))

    rows = tuple(singular(f"h.{k}.w", 10.0 + k) for k in range(48))
    text = shown(replace(analysis(data=False), layers=rows))
    (row,) = [line for line in text.splitlines() if line.startswith("h.*.w")]
    assert row.split()[3:6] == ["∞", "∞", "(57)"]
    assert row.split()[7] == "".join(sorted(row.split()[7]))
    assert row.split()[7][0] == "▁"
    assert row.split()[7][-1] == "█"


@pytest.mark.parametrize("width", range(60, 130, 5))
def test_a_name_and_its_number_are_in_one_table(width: int) -> None:
    rows = tuple(layer(f"blocks.{k}.fc", "Linear", (20, 64), 2.0 + k) for k in range(50))
    text = shown(replace(analysis(), layers=rows), width)
    for table in text.split("Worst layers")[1:]:
        heading, *lines = table.split("\n\n")[0].splitlines()[1:]
        count = heading.count("largest") + heading.count("lowest")
        assert len(lines) == 10
        for line in lines:
            assert len(line.split()) == 1 + 2 * count + line.count("(")


def test_layers_that_are_as_good_as_the_best_are_no_worst_layers() -> None:
    rows = [weight_layer(f"h.{k}.w", 3.0) for k in range(50)]
    rows[7] = weight_layer("h.7.w", 5.0)
    text = shown(replace(analysis(data=False), layers=tuple(rows)))
    assert "lowest eff. rank" not in text
    (line,) = text.split("Worst layers")[1].split("\n\n")[0].splitlines()[2:]
    assert line.split() == ["1", "h.7.w", "5"]


def test_names_are_gathered_by_their_numbers() -> None:
    assert by_pattern(["a.0.w", "b", "a.1.w"]) == {"a.*.w": [0, 2], "b": [1]}
    assert by_pattern(["f.0", "f.1", "f.2"], ["Conv2d", "BatchNorm2d", "Conv2d"]) == {
        "f.* (Conv2d)": [0, 2],
        "f.1": [1],
    }
    resnet = [f"layer{stage}.{block}.conv{k}" for stage in range(1, 9) for block in range(2) for k in range(1, 5)]
    assert len(resnet) // 2 > MOST_PATTERNS
    assert list(by_pattern(resnet)) == [f"layer*.*.conv{k}" for k in range(1, 5)]
    assert place_of("layer3.1.conv2", "layer*.*.conv2") == "3.1"
    assert place_of("f.2", "f.* (Conv2d)") == "2"
    assert place_of("b", "b") == ""
    assert named(["a", "b"]) == "a, b"
    assert named([f"h.{k}.w" for k in range(12)] + ["head"]) == "h.*.w × 12, head"
    letters = [chr(97 + k) * 3 for k in range(10)]
    assert named(letters) == "aaa, bbb, ccc, ddd, eee, fff and 4 more"


@pytest.mark.parametrize("names", [["a.*", "a.1", "a.2"], ["a.* (K)", "a.1", "a.2", "b.1"]])
def test_no_layer_is_lost_to_a_name_that_looks_like_a_pattern(names: list[str]) -> None:
    kinds = ["K", "K", "L", "K"][: len(names)]
    groups = by_pattern(names, kinds)
    assert sorted(place for places in groups.values() for place in places) == list(range(len(names)))
    rows = tuple(replace(weight_layer(name, 2.0), kind=kind) for name, kind in zip(names, kinds, strict=True))
    assert sum(len(one.layers) for one in summaries(rows)) == len(names)


def test_patterns_beyond_a_screen_are_counted() -> None:
    words = ["".join(chr(97 + int(digit)) for digit in f"{k:03d}") for k in range(60)]
    text = shown(replace(analysis(data=False), layers=tuple(weight_layer(word, 2.0) for word in words)))
    assert f"and {60 - MOST_PATTERNS} more patterns" in text


def test_infinite_medians_are_null_in_json_and_infinite_in_the_table() -> None:
    rows = tuple(weight_layer(f"h.{k}.w", None if k < 30 else 2.0) for k in range(50))
    (entry,) = list(summary_entries(rows))
    assert entry["quantities"]["weights.condition_number"]["median"] == math.inf
    text = shown(replace(analysis(data=False), layers=rows))
    (row,) = [line for line in text.splitlines() if line.startswith("h.*.w")]
    assert row.split()[3] == "∞"
