"""Plugins are found by their entry points; one that fails is named with its error, and nothing else suffers."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from curvlab.capture.survey import survey
from curvlab.layers.registered import load_layers
from curvlab.plugins import Plugin, load

GROUP = "curvlab.test"
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts distributions on the path that are real to importlib: a module and its metadata."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, source: str | None, group: str = GROUP) -> None:
        if source is not None:
            (tmp_path / f"plugin_{name}.py").write_text(source)
        info = tmp_path / f"curvlab_{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: curvlab-{name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = plugin_{name}\n")
        importlib.invalidate_caches()
        load.cache_clear()

    yield write
    load.cache_clear()


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("raise RuntimeError('no such device')", "RuntimeError: no such device"),
        ("import plugin_that_nobody_has", "ModuleNotFoundError: No module named 'plugin_that_nobody_has'"),
        ("def (", "SyntaxError: "),
        (None, "ModuleNotFoundError: No module named 'plugin_broken'"),
    ],
    ids=["raises", "misses-a-dependency", "is-no-python", "is-not-there"],
)
def test_a_broken_plugin_is_reported_and_skipped(install: Install, source: str | None, error: str) -> None:
    install("broken", source)
    install("after", "")
    install("builtin", "")
    first, second, third = load(GROUP)
    # The built-in ones come first, whatever the alphabet says.
    assert first == Plugin("builtin", "plugin_builtin", "curvlab-builtin 1.2")
    assert second == Plugin("after", "plugin_after", "curvlab-after 1.2")
    assert (third.name, third.module, third.distribution) == ("broken", "plugin_broken", "curvlab-broken 1.2")
    assert third.error is not None
    assert third.error.startswith(error)


def test_a_broken_layer_plugin_does_not_end_a_run(install: Install) -> None:
    install("broken", "raise RuntimeError('no such device')", "curvlab.layers")
    found = survey(nn.Sequential(nn.Linear(3, 2)), torch.randn(4, 3))
    assert set(found.blocks) == {"0"}
    assert {p.name: p.error for p in load_layers()}["broken"] == "RuntimeError: no such device"


def test_plugins_are_imported_once(install: Install, tmp_path: Path) -> None:
    log = tmp_path / "log"
    install("once", f"with open({str(log)!r}, 'a') as log: log.write('imported ')\nraise RuntimeError('and failed')")
    assert load(GROUP) == load(GROUP)
    assert log.read_text() == "imported "


def test_a_group_nobody_uses_is_empty() -> None:
    assert load("curvlab.nobody") == ()


def test_layers_are_found_without_installed_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: importlib.metadata.EntryPoints())
    load.cache_clear()
    try:
        assert load_layers() == ()
        assert set(survey(nn.Sequential(nn.Linear(3, 2)), torch.randn(4, 3)).blocks) == {"0"}
    finally:
        load.cache_clear()


def test_builtin_layers_are_a_plugin_like_any_other() -> None:
    builtin = load("curvlab.layers")[0]
    assert (builtin.name, builtin.module, builtin.error) == ("builtin", "curvlab.layers.builtin", None)
    assert builtin.distribution == f"curvlab {importlib.metadata.version('curvlab')}"


@pytest.mark.skipif(importlib.util.find_spec("curvlab_recurrent") is None, reason="curvlab-recurrent is not installed")
def test_the_recurrent_plugin_is_listed_and_seen_by_the_capture() -> None:
    listed = {p.name: p for p in load("curvlab.layers")}
    assert listed["recurrent"].error is None
    assert listed["recurrent"].distribution.startswith("curvlab-recurrent ")
    found = survey(nn.Sequential(nn.GRU(3, 5, batch_first=True)), torch.randn(4, 6, 3))
    assert set(found.blocks) == {"0.ih_l0", "0.hh_l0"}
    assert found.refused == {}
