"""The command line without work: help, version, lists, start-up, bugs, terminals."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pty
import re
import subprocess
import sys
import threading

import copies
import pytest
import torch
from commands import FULL
from safetensors.torch import save_file

from curvlab.data import names
from curvlab.formats.format import FORMATS

HEAVY = ("torch", "numpy", "h5py", "onnx", "matplotlib", "safetensors", "PIL")
PROBE = """
import sys
from curvlab_cli.main import run
sys.argv = ["curvlab", *sys.argv[1:]]
try:
    run()
finally:
    print("loaded:", *(name for name in {heavy} if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments", [("--help",), ("analyze", "--help"), ("list", "-h"), ("--version",), ("list", "datasets")]
)
def test_what_needs_no_numbers_loads_none_of_the_heavy_libraries(arguments):
    code = PROBE.format(heavy=HEAVY)
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert run.stderr.splitlines()[-1] == "loaded:"
    assert run.stdout


def test_every_option_of_the_interface_is_in_the_help(process):
    text = process("analyze", "--help", env={"COLUMNS": "200"}).stdout
    for option in (
        *(
            "--architecture",
            "--data",
            "--samples",
            "--batch-size",
            "--loss",
            "--fisher-type",
            "--mc-samples",
            "--kfac-approx",
        ),
        *(
            "--statistic",
            "--analyses",
            "--sort",
            "--layers",
            "--device",
            "--dtype",
            "--seed",
            "--threads",
            "--max-memory",
        ),
        *("--dry-run", "--json", "--csv", "--fail-if", "--trust"),
    ):
        assert option in text
    for choice in ("cross-entropy", "forward-only", "per-example", "condition", "float64", "Examples"):
        assert choice in text


def test_the_version():
    run = subprocess.run([sys.executable, "-m", "curvlab_cli", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"curvlab {importlib.metadata.version('curvlab')}\n"


@pytest.mark.parametrize("arguments", [(), ("nothing",), ("list",), ("list", "nothing"), ("analyze",)])
def test_half_a_command_is_code_2(inside, arguments):
    assert inside(*arguments).returncode == 2


def test_lists_hold_what_there_is(inside):
    text = inside("list", "datasets").stdout
    assert all(name in text for name in names())
    document = json.loads(inside("list", "formats", "--json", "-").stdout)
    assert document["schema"] == "curvlab.list/1"
    assert [entry["name"] for entry in document["entries"]] == list(FORMATS)
    layers = {entry["module"]: entry for entry in json.loads(inside("list", "layers", "--json", "-").stdout)["entries"]}
    assert {"torch.nn.Linear", "torch.nn.Conv2d", "torch.nn.BatchNorm2d", "torch.nn.Embedding"} <= set(layers)
    assert layers["torch.nn.Linear"]["from"].startswith("curvlab ")


def test_a_bug_is_called_one():
    code = (
        "import curvlab_cli.main as main\ndef app(): raise ZeroDivisionError('by\\nzero')\nmain.app = app\nmain.run()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert "ZeroDivisionError: by: this is a bug in curvlab" in run.stderr
    assert "CURVLAB_DEBUG=1" in run.stderr


@pytest.mark.parametrize("error", ["MemoryError()", 'RuntimeError("DefaultCPUAllocator: can\'t allocate memory")'])
def test_memory_that_ran_out_is_no_bug(error):
    code = f"import curvlab_cli.main as main\ndef app(): raise {error}\nmain.app = app\nmain.run()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "memory ran out" in run.stderr
    assert "bug" not in run.stderr


HOSTILE = ["\x1b]0;owned\x07", "\x1b[2Jgone", "a\u202eb", "[red]x[/red]", "line\nbreak"]


@pytest.fixture(scope="module")
def hostile_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "model.safetensors"
    save_file({f"{name}.weight": torch.rand(4, 3) for name in HOSTILE}, path)
    return path


def test_hostile_names_reach_no_terminal(inside, hostile_model, tmp_path):
    run = inside("analyze", hostile_model, "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv")
    assert run.returncode == 0
    outputs = (run.stdout, run.stderr, (tmp_path / "a.json").read_text(), (tmp_path / "a.csv").read_text())
    for text in outputs:
        assert text.replace("\n", "").isprintable()
    assert "[red]x[/red]" in run.stdout
    assert {layer["name"] for layer in json.loads(outputs[2])["layers"]} == set(HOSTILE)


def test_hostile_paths_and_options_reach_no_terminal(inside):
    run = inside("analyze", "no\x1b[31mfile\u202e.pt")
    assert run.returncode == 1
    assert run.stderr.replace("\n", "").isprintable()


def on_a_terminal(arguments, cwd, env):
    """(output, exit code) of a process whose stdout and stderr are one terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "90", "OMP_NUM_THREADS": "1"}
    environment = {key: value for key, value in (environment | env).items() if value is not None}
    pieces = []

    def read():
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 4096):
                pieces.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    done = copies.run("-m", "curvlab_cli", *arguments, cwd=cwd, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    reader.join()
    os.close(ours)
    return b"".join(pieces).decode(), done.returncode


COLOUR = re.compile(r"\x1b\[[0-9;]*\b(?:3[0-79]|38|9[0-7])[0-9;]*m")


def test_a_terminal_gets_bars_and_a_table_of_its_width(folder):
    text, code = on_a_terminal(FULL, folder, {"NO_COLOR": None})
    assert code == 0
    assert "━" in text
    assert COLOUR.search(text)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    table = plain[plain.index("model: model.safetensors") :]
    assert max(len(line.rstrip("\r")) for line in table.split("\n")) <= 90


def test_a_pipe_is_as_wide_as_columns_says(process):
    def widest(columns):
        environment = {"COLUMNS": columns} if columns else {}
        run = process(*FULL, env=environment)
        return max(map(len, run.stdout.splitlines()))

    assert widest("50") <= 50
    assert 70 < widest(None) <= 100
    assert 100 < widest("180") <= 180
    assert widest("no number") == widest(None)


def test_no_color_is_honoured_on_a_terminal(folder):
    text, code = on_a_terminal(FULL, folder, {"NO_COLOR": "1"})
    assert code == 0
    assert not COLOUR.search(text)


def test_a_dumb_terminal_gets_lines(folder):
    text, code = on_a_terminal(FULL, folder, {"TERM": "dumb"})
    assert code == 0
    assert "curvlab: statistics" in text
    assert "\x1b" not in text


def test_output_that_cannot_hold_the_symbols_is_not_a_crash(folder):
    command = [sys.executable, "-m", "curvlab_cli", "analyze", "model.safetensors"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert "?(W)" in run.stdout


def test_completion_is_there(process):
    run = process("--show-completion", "bash", env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert run.returncode == 0
    assert "CURVLAB" in run.stdout
