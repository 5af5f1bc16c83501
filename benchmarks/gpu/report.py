"""One JSON and one Markdown table of a run on a device, named by the card."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
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


def write(folder: Path, ran: dict[str, Any], outcome: Outcome, tables: Sequence[Table], seconds: float) -> list[Path]:
    """Write both files, and return their paths."""
    stem = "gpu-" + (re.sub(r"[^a-z0-9]+", "-", str(ran["device"]).lower()).strip("-") or "unknown")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.json", folder / f"{stem}.md"]
    document = {
        "schema": SCHEMA,
        **ran,
        "seconds": round(seconds, 1),
        "tests": asdict(outcome),
        "tables": [asdict(table) for table in tables],
    }
    paths[0].write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    paths[1].write_text(_markdown(ran, outcome, tables, seconds), encoding="utf-8")
    return paths


def _markdown(ran: dict[str, Any], outcome: Outcome, tables: Sequence[Table], seconds: float) -> str:
    memory = f", {ran['memory'] / 2**30:.0f} GiB" if ran["memory"] else ""
    cuda = f", CUDA {ran['cuda']}" if ran["cuda"] else ""
    lines = [f"# {ran['device']}{memory}", ""]
    lines += [
        f"torch {ran['torch']}{cuda}, Python {ran['python']}, curvlab at {ran['commit']}, {seconds:.0f} s in all.",
        "",
    ]
    ended = f" {outcome.ended}." if outcome.ended else ""
    lines += [
        f"Numerical tests: {outcome.passed} passed, {outcome.failed} failed in {outcome.seconds:.0f} s.{ended}",
        "",
    ]
    lines += [f"- {name}: {message}" for name, message in outcome.failures.items()]
    lines += [""] if outcome.failures else []
    lines += ["| what | ms | ratio | min–max | CPU ms | most memory, MiB |", "|---|---|---|---|---|---|"]
    for table in tables:
        lines.append(f"| **{table.title}**, in units of {table.unit} | | | | | |")
        for row, held in zip(table.rows, table.memory, strict=True):
            low, high = row.spread
            numbers = f"{row.seconds * 1e3:.2f} | {row.ratio:.2f} | {low:.2f}–{high:.2f} | {row.cpu * 1e3:.2f}"
            lines.append(f"| {row.name} | {numbers} | {'' if held is None else f'{held:.0f}'} |")
    return "\n".join(lines) + "\n"
