"""Analyses by name: built-in ones take the road of plugins, in an order of their own, and each says what it is."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import subprocess
import sys

import pytest

from curvlab.analyses.builtin import ORDER
from curvlab.analyses.definition import AnalysisDefinition, LayerAnalysis
from curvlab.analyses.registry import check_sort, definitions, names, register, sort_keys
from curvlab.document.field_paths import field_paths
from curvlab.errors import CommandError
from curvlab.listing import listing
from curvlab.plugins import load

BUILTIN = [one for one in definitions() if type(one).__module__.startswith("curvlab.")]


def test_builtin_analyses_are_a_plugin_like_any_other() -> None:
    first = load("curvlab.analyses")[0]
    assert (first.name, first.module, first.error) == ("builtin", "curvlab.analyses.builtin", None)


def test_they_are_found_without_installed_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: importlib.metadata.EntryPoints())
    load.cache_clear()
    try:
        assert names()[: len(ORDER)] == ORDER
    finally:
        load.cache_clear()


def test_their_order_is_not_that_of_imports() -> None:
    code = "import curvlab.analyses.tnt, curvlab.analyses.registry as r; print(*r.names())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert tuple(run.stdout.split())[: len(ORDER)] == ORDER


@pytest.mark.parametrize("one", BUILTIN, ids=lambda one: one.name)
def test_each_says_what_it_is(one: AnalysisDefinition) -> None:
    assert one.help
    assert one.title
    assert dataclasses.is_dataclass(one.result)
    assert one.result.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert field_paths(one.result)
    assert len({quantity.title for quantity in one.quantities}) == len(one.quantities)


def test_a_name_is_taken_once() -> None:
    class Other(LayerAnalysis):
        name = "weights"

        def run(self, layer: object) -> None:
            return None

    with pytest.raises(ValueError, match="'weights' is registered already"):
        register(Other)
    kind = type(definitions()[0])
    assert register(kind) is kind  # a module that is imported twice is no conflict


def test_orders_of_rows_are_checked() -> None:
    assert sort_keys()[:4] == ("model", "name", "parameters", "condition")
    assert {"stable-rank", "effective-rank", "tail", "dead", "identity", "lnb", "kronecker"} < set(sort_keys())
    check_sort("dead")
    with pytest.raises(CommandError, match="did you mean 'condition'"):
        check_sort("conditon")


def test_the_listing_names_paths_for_gates() -> None:
    found = listing("analyses")
    rows = {row[0]: dict(zip(found.columns, row, strict=True)) for row in found.rows}
    assert list(rows)[: len(ORDER)] == list(ORDER)
    assert rows["weights"]["gates"].startswith("spectral_norm, frobenius_norm, stable_rank")
    assert "kronecker.condition_number_nonzero" in rows["kfac"]["gates"]
    assert "modes.0.rank" in rows["tnt"]["gates"]
    assert (rows["moments"]["data"], rows["quantisation"]["by default"]) == ("needed", "when asked for")
