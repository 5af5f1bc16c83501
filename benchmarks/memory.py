"""Peak resident memory of a gradient and of the factors of ResNet-18, each in a fresh process."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.networks import resnet18
from curvlab.curvature import kfac_factors


def peak_mebibytes() -> float:
    """Highest resident size of this process so far (getrusage also counts the parent's, up to the exec)."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def work(what: str, stem: int) -> None:
    """Do one thing and print how far the peak rose above a forward of two examples."""
    model, x, y = resnet18(stem)
    torch.autograd.grad(torch.nn.functional.cross_entropy(model(x[:2]), y[:2]), list(model.parameters()))
    before = peak_mebibytes()
    if what == "gradient":
        torch.autograd.grad(torch.nn.functional.cross_entropy(model(x), y), list(model.parameters()))
    else:
        kfac_factors(model, x, y, likelihood="categorical")
    print(peak_mebibytes() - before, peak_mebibytes())


def measure() -> None:
    """Print the table."""
    print("\n### Peak memory of ResNet-18, batch 64, MiB (fresh processes)\n")
    print("| stem | what | above start | whole process | ratio |\n|---|---|---|---|---|")
    for stem in (7, 3):
        base = 0.0
        for what in ("gradient", "curvlab.curvature.kfac_factors (mc)"):
            command = [sys.executable, "-c", f"from benchmarks.memory import work; work({what!r}, {stem})"]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            rise, whole = map(float, printed.split())
            base = base or whole
            print(f"| {stem}×{stem} | {what} | {rise:.0f} | {whole:.0f} | {whole / base:.2f} |")
