"""The run on a GPU, rehearsed without one: on a device in Python that refuses to mix with the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.numerics import ORACLES, Outcome
from benchmarks.gpu.report import Run, write
from benchmarks.gpu.speed import Table
from benchmarks.gpu.tree import ROOT, environment
from benchmarks.timing import Row


def ran(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True)


def test_without_a_gpu_it_says_so_and_ends(tmp_path: Path) -> None:
    done = ran("--output", str(tmp_path), CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "There is no GPU that torch can use on this machine: nothing was run.\n"
    assert not list(tmp_path.iterdir())


def test_the_rehearsal_on_another_device_than_the_cpu(tmp_path: Path) -> None:
    done = ran("--device", "foreign", "--quick", "--output", str(tmp_path), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu-foreign.json").read_text(encoding="utf-8"))
    assert found["schema"] == "curvlab.device-run/1"
    assert found["tests"]["failed"] == 0
    assert found["tests"]["passed"] > 40
    assert [table["unit"] for table in found["tables"]] == ["one gradient", "SGD-m"]
    table = (tmp_path / "gpu-foreign.md").read_text(encoding="utf-8")
    assert "| curvlab.curvature.kfac_factors (mc) |" in table


def test_the_oracles_that_it_runs_are_there() -> None:
    assert all((ROOT / path).is_file() for path in ORACLES)


SEEN = """
import importlib.metadata
import curvlab, curvlab_cli
from curvlab.plugins import load
points = load("curvlab.layers")
print(importlib.metadata.distribution("curvlab").locate_file(""), sorted({p.distribution for p in points}))
assert not any(p.error for p in points)
"""


def test_a_plain_tree_registers_what_an_installed_one_does(tmp_path: Path) -> None:
    with environment() as variables:
        command = [sys.executable, "-c", SEEN]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)
        folder = variables["PYTHONPATH"].split(os.pathsep)[0]
        assert done.stdout.startswith(folder)
    assert "curvlab 0.1.0" in done.stdout
    assert "curvlab-recurrent 0.1.0" in done.stdout
    assert not Path(folder).exists()


def test_the_table_names_the_card_and_what_failed(tmp_path: Path) -> None:
    facts = {
        "device": "Some Card 9000",
        "memory": 8 * 2**30,
        "torch": "2.11",
        "cuda": "13.0",
        "python": "3.12",
        "commit": "a",
    }
    rows = (Row("a", 0.5, 1.0, (1.0, 1.0), 0.25, 1.0), Row("b", 1.0, 2.0, (1.5, 2.5), 0.5, 2.0))
    outcome = Outcome(3, 1, 9.0, {"x::y": "E bad"}, None)
    paths = write(tmp_path, Run(facts, outcome, [Table("t", "a", rows, (None, 10.0))], {"u": "no memory"}, 12.0))
    assert [path.name for path in paths] == ["gpu-some-card-9000.json", "gpu-some-card-9000.md"]
    text = paths[1].read_text(encoding="utf-8")
    assert "3 passed, 1 failed" in text
    assert "- x::y: E bad\n- u: no memory\n" in text
    assert "| b | 1000.00 | 2.00 | 1.50–2.50 | 500.00 | 10 |" in text
