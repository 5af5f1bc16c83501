"""One JSON and one Markdown table of a run on a device, named by the card."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.numerics import Outcome
from benchmarks.gpu.speed import Table
from benchmarks.gpu.tree import ROOT

SCHEMA = "curvlab.device-run/1"


def facts(device: torch.device) -> dict[str, Any]:
    """What ran where."""
    name, memory, capability = device.type, None, None
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        name, memory, capability = card.name, card.total_memory, f"{card.major}.{card.minor}"
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {
        "device": name,
        "memory": memory,
        "capability": capability,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "commit": found.stdout.strip() or None,
    }


@dataclass(frozen=True)
class Run:
    """Everything that was found.

    Attributes:
        facts: what ran where.
        tests: the outcome of the numerical tests.
        tables: of times and memory.
        missing: title of a table that could not be measured -> why.
        seconds: all of it.
    """

    facts: dict[str, Any]
    tests: Outcome
    tables: Sequence[Table]
    missing: dict[str, str]
    seconds: float


def write(folder: Path, run: Run) -> list[Path]:
    """Write both files, and return their paths."""
    stem = "gpu-" + (re.sub(r"[^a-z0-9]+", "-", str(run.facts["device"]).lower()).strip("-") or "unknown")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.json", folder / f"{stem}.md"]
    found = asdict(run)
    document = {"schema": SCHEMA, **found.pop("facts"), **found}
    paths[0].write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    paths[1].write_text(_markdown(run), encoding="utf-8")
    return paths


def _markdown(run: Run) -> str:
    facts, tests = run.facts, run.tests
    memory = f", {facts['memory'] / 2**30:.0f} GiB" if facts["memory"] else ""
    cuda = f", CUDA {facts['cuda']}" if facts["cuda"] else ""
    versions = f"torch {facts['torch']}{cuda}, Python {facts['python']}, curvlab at {facts['commit']}"
    ended = f" {tests.ended}." if tests.ended else ""
    failures = [f"- {name}: {message}" for name, message in {**tests.failures, **run.missing}.items()]
    lines = [
        f"# {facts['device']}{memory}",
        "",
        f"{versions}, {run.seconds:.0f} s in all.",
        f"Numerical tests: {tests.passed} passed, {tests.failed} failed in {tests.seconds:.0f} s.{ended}",
        "",
        *([*failures, ""] if failures else []),
        "| what | ms | ratio | min–max | CPU ms | most memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for table in run.tables:
        lines.append(f"| **{table.title}**, in units of {table.unit} | | | | | |")
        for row, held in zip(table.rows, table.memory, strict=True):
            low, high = row.spread
            numbers = f"{row.seconds * 1e3:.2f} | {row.ratio:.2f} | {low:.2f}–{high:.2f} | {row.cpu * 1e3:.2f}"
            lines.append(f"| {row.name} | {numbers} | {'' if held is None else f'{held:.0f}'} |")
    return "\n".join(lines) + "\n"
