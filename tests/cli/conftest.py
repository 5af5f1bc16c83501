"""The command line as a user starts it: as a process, or, where a process would show nothing more, in this one."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

import copies
import pytest
import torch
from commands import FULL
from curvlab_cli.main import run
from safetensors.torch import save_file
from torch import nn

ARCHITECTURE = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
"""


class Run(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A working directory with weights and, in a module beside them, the network they belong to."""
    path = tmp_path_factory.mktemp("work")
    (path / "mynet.py").write_text(ARCHITECTURE)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    save_file(network.state_dict(), path / "model.safetensors")
    return path


@pytest.fixture(scope="session")
def process(folder):
    """`process("analyze", ...)` in that directory, in a process of its own, finished."""

    def start(*arguments, env=None, **options):
        environment = {key: value for key, value in os.environ.items() if key not in ("CURVLAB_DEBUG", "COLUMNS")}
        environment |= {"OMP_NUM_THREADS": "1", **(env or {})}
        done = copies.run("-m", "curvlab_cli", *map(str, arguments), cwd=folder, env=environment, **options)
        return Run(done.returncode, done.stdout, done.stderr)

    return start


@pytest.fixture
def inside(folder, monkeypatch, capsys):
    """The same in this process."""

    def start(*arguments):
        monkeypatch.chdir(folder)
        monkeypatch.delenv("CURVLAB_DEBUG", raising=False)
        monkeypatch.setattr(sys, "argv", ["curvlab", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run()
        return Run(stop.value.code or 0, *capsys.readouterr())

    return start


@pytest.fixture(scope="session")
def full_run(process):
    """One full profile: table to stdout, JSON and CSV to files, one gate that holds and one that does not."""
    gates = ("--fail-if", "any.weights.rank > 11", "--fail-if", "coverage.analyzed < coverage.parameters")
    return process(*FULL, "--json", "full.json", "--csv", "full.csv", *gates)
