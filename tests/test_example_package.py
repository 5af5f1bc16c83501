"""A package of one's own: what it registers is found in every place where curvlab's own things are found."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import copies
import pytest
import torch
from safetensors.torch import load_file, save_file

PACKAGE = Path(__file__).parent / "example_package" / "curvlab_example"
BRINGS = {"analyses": "sparsity", "curvatures": "diagonal", "layers": "centred", "reports": "outline"}
"""Entry-point group of curvlab -> the one module in which the package adds something to it."""
POINTS = "".join(f"[curvlab.{group}]\nexample = curvlab_example.{module}\n" for group, module in BRINGS.items())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as an installer leaves it, a network, weights with zeros, and data."""
    path = tmp_path_factory.mktemp("place")
    shutil.copytree(PACKAGE, path / "curvlab_example")
    info = path / "curvlab_example-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: curvlab-example\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text(POINTS)
    (path / "mynet.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))\n"
    )
    torch.manual_seed(0)
    weights = {"0.weight": torch.randn(3, 4), "0.bias": torch.zeros(3), "1.weight": torch.randn(2, 3)}
    weights["1.weight"][0] = 0.0
    save_file({**weights, "1.bias": torch.zeros(2)}, path / "model.safetensors")
    x = torch.randn(20, 4)
    x[:, 1] = 0.0
    save_file({"x": x, "y": torch.randn(20, 2)}, path / "data.safetensors")
    return path


def curvlab(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    return copies.run("-m", "curvlab_cli", *arguments, cwd=place, env=environment)


MODEL = ("analyze", "model.safetensors", "--architecture", "mynet:build", "--data", "data.safetensors")


def test_its_analysis_is_listed_with_the_package_it_came_from(place: Path) -> None:
    run = curvlab(place, "list", "analyses", "--json", "-")
    entries = {entry["name"]: entry for entry in json.loads(run.stdout)["entries"]}
    assert list(entries)[:5] == ["weights", "moments", "kfac", "tnt", "fop"]
    mine = entries["sparsity"]
    assert mine["what"].startswith("share of zeros")
    assert (mine["sort"], mine["gates"]) == ("sparsity", "weight, inputs")
    assert (mine["by default"], mine["data"], mine["from"]) == (
        "when asked for",
        "used if given",
        "curvlab-example 3.1",
    )


def test_its_analysis_is_in_the_table_the_json_the_csv_gates_markdown_and_pictures(place: Path) -> None:
    outputs = ("--json", "a.json", "--csv", "a.csv", "--markdown", "a.md", "--plots", "pictures")
    gates = ("--fail-if", "any.sparsity.inputs == 0.25", "--fail-if", "1.sparsity.weight > 0.6")
    run = curvlab(place, *MODEL, "--analyses", "sparsity", "--sort", "sparsity", *outputs, *gates)
    assert run.returncode == 3, run.stderr
    assert "gate 'any.sparsity.inputs == 0.25' holds: 0: 0.25 == 0.25" in run.stderr
    assert "1.sparsity.weight" not in run.stderr
    table = run.stdout[run.stdout.index("Sparsity\n") :].splitlines()
    assert table[1].split()[-1] == "zeros"
    assert [line.split()[0] for line in table[2:4]] == ["1", "0"]
    assert table[2].split()[-1] == "50%"
    assert "zeros: share of the weight's entries that are 0" in run.stdout
    layers = json.loads((place / "a.json").read_text())["layers"]
    assert [layer["sparsity"] for layer in layers] == [
        {"weight": 0.0, "inputs": 0.25},
        {"weight": 0.5, "inputs": 0.0},
    ]
    rows = list(csv.DictReader((place / "a.csv").read_text().splitlines()))
    assert [row["sparsity.weight"] for row in rows] == ["0.0", "0.5"]
    assert "| 1 | Linear | 2x3 | 8 | 50% |" in (place / "a.md").read_text()
    assert "](<pictures/sparsity.svg>)" in (place / "a.md").read_text()
    assert (place / "pictures" / "sparsity.png").exists()


def test_its_analysis_is_not_done_unasked_and_can_be_planned(place: Path) -> None:
    run = curvlab(place, *MODEL, "--json", "-")
    assert "sparsity" not in run.stdout
    plan = json.loads(curvlab(place, *MODEL, "--analyses", "sparsity", "--dry-run", "--json", "-").stdout)
    assert [block["name"] for block in plan["blocks"]] == ["0", "1"]


def test_a_name_nobody_registered_is_refused_with_the_names_there_are(place: Path) -> None:
    run = curvlab(place, *MODEL, "--analyses", "sparse")
    assert run.returncode == 2
    assert "there is no 'sparse'; did you mean 'sparsity'" in run.stderr
    run = curvlab(place, *MODEL, "--sort", "sparsty")
    assert run.returncode == 2
    assert "did you mean 'sparsity'" in run.stderr


def test_its_curvature_is_an_analysis_an_optimizer_and_a_contestant(place: Path) -> None:
    """One class of one file: listed twice, in the table, the JSON, gates, a training run and a comparison."""
    listed = {}
    for subject in ("analyses", "optimizers"):
        entries = json.loads(curvlab(place, "list", subject, "--json", "-").stdout)["entries"]
        listed[subject] = {entry["name"]: entry for entry in entries}
    assert listed["analyses"]["diagonal"]["what"] == "the Fisher matrix's diagonal E[g²], layer by layer"
    assert listed["analyses"]["diagonal"]["by default"] == "when asked for"
    assert listed["optimizers"]["diagonal"]["source"] == "LeCun et al. 1998"
    gate = ("--fail-if", "any.diagonal.block.trace > 0")
    run = curvlab(place, *MODEL, "--analyses", "diagonal", "--json", "d.json", *gate)
    assert run.returncode == 3, run.stderr
    assert "tr(diagonal)" in run.stdout
    blocks = [layer["diagonal"]["block"] for layer in json.loads((place / "d.json").read_text())["layers"]]
    assert [block["size"] for block in blocks] == [15, 8]
    wine = ("--problem", "wine-mlp", "--steps", "2")
    run = curvlab(place, "compare", *wine, "--optimizers", "diagonal,sgd", "--json", "-")
    assert run.returncode == 0, run.stderr
    assert 0 < json.loads(run.stdout)["optimizers"]["diagonal"]["mean"] <= 1
    run = curvlab(place, "train", *wine, "--optimizer", "diagonal", "--out", "run")
    assert run.returncode == 0, run.stderr


def test_its_layer_is_listed_and_analysed(place: Path) -> None:
    entries = json.loads(curvlab(place, "list", "layers", "--json", "-").stdout)["entries"]
    mine = {entry["module"]: entry["from"] for entry in entries}
    assert mine["curvlab_example.centred.Centred"] == "curvlab-example 3.1"
    (place / "own.py").write_text(
        "from curvlab_example.centred import Centred\nfrom torch import nn\n\n\n"
        "def build():\n    return nn.Sequential(Centred(4, 3), nn.Linear(3, 2))\n"
    )
    weights = load_file(place / "model.safetensors")
    save_file({**weights, "0.centre": torch.full((4,), 0.5)}, place / "own.safetensors")
    own = ("analyze", "own.safetensors", "--architecture", "own:build", "--data", "data.safetensors")
    run = curvlab(place, *own, "--analyses", "moments,kfac", "--json", "-")
    assert run.returncode == 0, run.stderr
    layer = json.loads(run.stdout)["layers"][0]
    assert layer["kind"] == "Centred"
    x = load_file(place / "data.safetensors")["x"].double() - 0.5
    widened = torch.cat([x, torch.ones(20, 1, dtype=x.dtype)], 1)
    assert layer["kfac"]["input_factor"]["trace"] == pytest.approx((widened.square().sum() / 20).item(), rel=1e-6)


def test_its_format_of_reports_is_an_option_of_the_commands(place: Path) -> None:
    entries = json.loads(curvlab(place, "list", "reports", "--json", "-").stdout)["entries"]
    assert entries[-1] == {
        "format": "an outline",
        "option": "--outline",
        "what it holds": "the whole report",
        "from": "curvlab-example 3.1",
    }
    run = curvlab(place, *MODEL, "--analyses", "moments", "--sort", "name", "--outline", "-")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0] == "* Analysis of model.safetensors"
    assert [line for line in run.stdout.splitlines() if line.startswith("*** ")][:2] == ["*** 0", "*** 1"]
    for command in ("compare", "train", "list"):
        assert "--outline" in curvlab(place, command, "--help").stdout
    run = curvlab(place, *MODEL, "--dry-run", "--outline", "o")
    assert (run.returncode, "--outline has nothing to show" in run.stderr) == (2, True)
