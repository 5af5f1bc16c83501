"""Counts what was survived: the written cases of tests/hostile and a run of the fuzzer, in one markdown table.

    python -m tests.hostile.table [--seconds 60] [--seed N]

Only what is run by this very command is counted. A written case is one test, told by what `load` (or the reader and the
network of ONNX) did in it last; a case that fails its test counts as failed whatever it did.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from .fuzz import MOST_MEGABYTES, Tally, fuzz
from .guard import Guard
from .refusal import MOST_SECONDS
from .samples import SAMPLES

HERE = Path(__file__).parent
# Rows: title -> (files of written cases, what the names of their tests contain; samples of the fuzzer).
ROWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "any path, and what stands in for a model": (("paths",), ()),
    "safetensors": (("safetensors",), ("safetensors",)),
    "sharded safetensors": (("shards",), ("sharded",)),
    "curvlab's own": (("fop_matrices",), ("curvlab",)),
    "PyTorch: zip, legacy, bare pickle": (
        ("torch_files", "torch_archives", "old_torch_files"),
        ("torch-zip", "torch-zip-closed", "torch-legacy", "torch-legacy-closed", "pickle"),
    ),
    "TorchScript and .pt2": (
        ("graph_archives",),
        ("torchscript", "torchscript-trusted", "pt2", "pt2-trusted"),
    ),
    "ONNX": (("onnx", "onnx_places"), ("onnx", "onnx-external")),
    "Keras (.keras)": (("keras",), ("keras",)),
    "GGUF": (("gguf",), ("gguf",)),
    "HDF5 (.h5)": (("hdf5", "hdf5_bytes"), ("h5-model", "h5-weights", "h5-keras-2")),
    "Hugging Face directory": ((), ("huggingface",)),
    "a folder's tokenizer and preprocessor": (("tokenizers", "preprocessors"), ()),
    "adapter of PEFT": (("adapters",), ()),
    "several formats at once": (("rest", "checksums", "messages"), ()),
}
# Tests of valid files, and tests that the danger is real elsewhere; all others are hostile cases.
CONTROLS = re.compile(
    "_(control|honest|does_execute_elsewhere|does_run_elsewhere|right_total_loads|would_follow|unusual_models)(_|$)"
)
# Where a test opens a model. The wrappers are put there before the tests are imported.
ENTRIES = (
    ("curvlab.formats.load", "load"),
    ("curvlab.analyses.source", "load"),
    ("curvlab.formats.onnx.file", "read_onnx"),
    ("curvlab.formats.onnx.running.verified_network", "onnx_network"),
)


class Outcomes:
    """A plugin of pytest: how the last opening of a model ended in each test."""

    def __init__(self) -> None:
        self.last = ""
        self.rows: dict[str, Counter[str]] = {}

    def heard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose end is noted."""
        from curvlab.errors import CurvlabError

        def opened(*arguments: Any, **options: Any) -> Any:
            try:
                found = function(*arguments, **options)
            except CurvlabError:
                self.last = "refused"
                raise
            self.last = "loaded"
            return found

        return opened

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.last = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and not report.failed:
            return
        file, _, test = report.nodeid.rpartition("::")
        name = Path(file.split("::")[0]).stem.removeprefix("test_hostile_")
        function = test.split("[")[0]
        control = CONTROLS.search(function)
        kind = "failed" if report.failed else "control" if control else self.last
        if not kind:
            print(f"not counted, since it opens no model: {report.nodeid}", file=sys.stderr)
            return
        self.rows.setdefault(name, Counter())[kind] += 1
        if report.failed:
            print(f"failed: {report.nodeid}", file=sys.stderr)


def written_cases() -> dict[str, Counter[str]]:
    """File of tests -> how many cases ended how; the tests are run here, in this process."""
    outcomes = Outcomes()
    sys.path.insert(0, str(HERE.parent))
    for module, name in ENTRIES:
        owner = importlib.import_module(module)
        setattr(owner, name, outcomes.heard(getattr(owner, name)))
    files = [str(path) for path in sorted(HERE.glob("test_hostile_*.py"))]
    quiet = ["-p", "no:cacheprovider", "-p", "no:terminal", "-o", "addopts=--strict-markers --import-mode=importlib"]
    pytest.main([*files, *quiet], plugins=[outcomes])
    return outcomes.rows


def rows(written: dict[str, Counter[str]], fuzzed: dict[str, Tally]) -> list[tuple[str, Counter[str], Counter[str]]]:
    """(title, written, fuzzed) of every row; the fuzzer's own models are controls of its counts."""
    named = {name for files, _ in ROWS.values() for name in files}
    assert named >= written.keys(), f"no row for {sorted(written.keys() - named)}"
    assert {name for _, samples in ROWS.values() for name in samples} == set(SAMPLES)
    found = []
    for title, (files, samples) in ROWS.items():
        cases: Counter[str] = sum((written.get(name, Counter()) for name in files), Counter())
        damaged: Counter[str] = Counter()
        for tally in (fuzzed[name] for name in samples):
            damaged["refused"] += tally.endings["refused"]
            damaged["loaded"] += tally.endings["loaded"]
            damaged["failed"] += tally.failed
            damaged["control"] += tally.control.kind == "loaded"
        found.append((title, cases, damaged))
    return found


def markdown(table: Sequence[tuple[str, Counter[str], Counter[str]]]) -> str:
    """The table; a cell `a + b` is written cases and damaged files."""
    heads = ("format", "hostile cases", "refused in one sentence", "survived otherwise (loads, as it must)", "failed")
    lines = [f"| {' | '.join((*heads, 'controls'))} |", "|---|---|---|---|---|---|"]
    total = ("all", sum((row[1] for row in table), Counter()), sum((row[2] for row in table), Counter()))
    for title, cases, damaged in (*table, total):
        hostile = [sum(counts.values()) - counts["control"] for counts in (cases, damaged)]
        cells = [hostile, *([counts[kind] for counts in (cases, damaged)] for kind in ("refused", "loaded", "failed"))]
        texts = [f"{ours:,} + {theirs:,}" for ours, theirs in cells]
        lines.append(f"| {title} | {' | '.join(texts)} | {cases['control'] + damaged['control']} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 when anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.table", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="of fuzzing")
    parser.add_argument("--seed", type=int, default=0, help="other damage")
    given = parser.parse_args(arguments)
    written = written_cases()
    keep = Path(tempfile.gettempdir()) / "curvlab-fuzz"
    with Guard(MOST_SECONDS, MOST_MEGABYTES) as guard:
        fuzzed = fuzz(list(SAMPLES), given.seconds, given.seed, keep, guard)
    table = rows(written, fuzzed)
    print(markdown(table))
    options = f"--seconds {given.seconds:.0f} --seed {given.seed}"
    print(
        f"\n`a + b`: a written cases (tests), b damaged files. Command: `python -m tests.hostile.table {options}`.\n"
        f"A refusal is one printable sentence; a file may take {MOST_SECONDS} s, {MOST_MEGABYTES // 1024} GiB.\n"
        "Controls are valid models, which must load, and proofs that the danger is real elsewhere."
    )
    for name, tally in fuzzed.items():
        for kept, ending in tally.failures:
            print(f"\n{name}, {ending.kind}: python -m tests.hostile.fuzz --repeat {kept}")
    failed = any(counts["failed"] for _, *both in table for counts in both)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
