"""A format of another package: declared by an entry point, listed, detected by its bytes, read, given a network."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import curvlab
from curvlab import plugins
from curvlab.errors import CheckpointError
from curvlab.formats.format import FORMATS, Format, register
from curvlab.listing import listing

Install = Callable[[str, str], None]

# A text file: a line that says what it is, then names and numbers as JSON. The whole package is this module.
MINE = """
import json

import torch

from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.format import Format, NamedNetworks, Network, register
from curvlab.formats.lazy_tensors import LazyTensors
from curvlab.formats.raw_checkpoint import RawCheckpoint


def read(path, max_memory):
    tensors = {name: torch.tensor(rows) for name, rows in json.loads(path.read_text().split("\\n", 1)[1]).items()}
    return RawCheckpoint(
        format="lines",
        files=(path,),
        specs={name: TensorSpec(tuple(tensor.shape), "float32") for name, tensor in tensors.items()},
        tensors=LazyTensors({name: (lambda tensor=tensor: tensor) for name, tensor in tensors.items()}),
    )


def network(path, raw, max_memory):
    weight = raw.tensors["fc.weight"]
    module = torch.nn.Sequential()
    module.add_module("fc", torch.nn.Linear(weight.shape[1], weight.shape[0]))
    module.load_state_dict(dict(raw.tensors))
    return Network(module.eval(), "the lines themselves")


register(
    Format(
        name="lines",
        what="a model in lines",
        support="runnable",
        detect=lambda candidate: candidate.head.startswith(b"LINES\\n"),
        read=read,
        network=network,
        needs="nothing else",
        suffixes=(".lines",),
        named=NamedNetworks("lines:", lambda path, raw, name, max_memory: network(path, raw, max_memory)),
    )
)
"""
WEIGHTS = {"fc.weight": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "fc.bias": [1.0, 2.0]}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution with one entry point of `curvlab.formats` on the path; what it registers goes afterwards."""
    site, before = tmp_path / "site", set(FORMATS)
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    modules = []

    def write(name: str, source: str) -> None:
        modules.append(f"format_{name}")
        (site / f"{modules[-1]}.py").write_text(source)
        info = site / f"curvlab_{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: curvlab-{name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[curvlab.formats]\n{name} = {modules[-1]}\n")
        importlib.invalidate_caches()
        plugins.load.cache_clear()

    yield write
    for name in set(FORMATS) - before:
        FORMATS.forget(name)
    for module in modules:
        sys.modules.pop(module, None)
    plugins.load.cache_clear()


def lines(path: Path) -> Path:
    path.write_text("LINES\n" + json.dumps(WEIGHTS))
    return path


def test_a_format_of_a_package_is_listed_detected_read_and_run(install: Install, tmp_path: Path) -> None:
    path = lines(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="is no model format that curvlab knows"):
        curvlab.load(path)
    install("lines", MINE)
    assert ("lines", "a model in lines", "runnable", "", "", "nothing else") in listing("formats").rows
    checkpoint = curvlab.load(path)
    assert checkpoint.format == "lines"
    assert [(layer.name, layer.kind, layer.shape) for layer in checkpoint.layers] == [("fc", "Linear", (2, 3))]
    assert checkpoint.architecture == "the lines themselves"
    assert checkpoint.module is not None
    assert checkpoint.module(torch.ones(1, 3)).tolist() == [[7.0, 17.0]]


def test_its_files_are_models_in_a_folder_and_its_networks_go_by_name(install: Install, tmp_path: Path) -> None:
    install("lines", MINE)
    folder = tmp_path / "folder"
    folder.mkdir()
    lines(folder / "net.lines")
    assert "opened 'net.lines', the only model file of the folder" in curvlab.load(folder).notes
    torch.save({name: torch.tensor(rows) for name, rows in WEIGHTS.items()}, tmp_path / "m.pt")
    assert curvlab.load(tmp_path / "m.pt", architecture="lines:any").architecture == "the lines themselves"


def test_curvlabs_own_formats_are_asked_first(install: Install, tmp_path: Path) -> None:
    install("greedy", MINE.replace('candidate.head.startswith(b"LINES\\n")', "True").replace('"lines"', '"greedy"'))
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "m.pt")
    assert curvlab.load(tmp_path / "m.pt").format == "torch-zip"


def test_a_package_that_cannot_be_imported_is_told_of_and_skipped(install: Install, tmp_path: Path) -> None:
    install("broken", "raise RuntimeError('no such reader')")
    told = "the plugin 'broken' of curvlab-broken 1.2 was skipped: RuntimeError: no such reader"
    assert told in listing("formats").notes
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "m.pt")
    assert curvlab.load(tmp_path / "m.pt").layers


def test_a_detection_that_fails_is_told_of_where_nothing_else_says_yes(install: Install, tmp_path: Path) -> None:
    install("clumsy", MINE.replace('candidate.head.startswith(b"LINES\\n")', "candidate.no_such_thing"))
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "m.pt")
    assert curvlab.load(tmp_path / "m.pt").layers
    said = "the format 'lines' failed to look at it (AttributeError)"
    with pytest.raises(CheckpointError, match=re.escape(said)):
        curvlab.load(lines(tmp_path / "net.lines"))


def test_two_formats_of_one_name_are_an_error() -> None:
    own = FORMATS["onnx"]
    assert register(own) is own
    with pytest.raises(ValueError, match="a format named 'onnx' is registered already"):
        register(Format(name="onnx", what="another", support="recognised only", detect=lambda candidate: False))


def test_curvlabs_own_formats_come_by_the_same_road() -> None:
    builtin = FORMATS.plugins()[0]
    assert (builtin.name, builtin.module, builtin.error) == ("builtin", "curvlab.formats.builtin", None)


def test_every_place_that_a_format_names_is_there() -> None:
    for entry in FORMATS.values():
        for function in (entry.read, entry.network, entry.named and entry.named.build):
            place = getattr(function, "__qualname__", "")
            if ":" in place:
                module, _, name = place.partition(":")
                assert callable(getattr(importlib.import_module(module), name)), place
