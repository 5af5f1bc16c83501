"""`python -m benchmarks.gpu`: test and time curvlab with everything on a GPU, from a plain copy of the tree.

It needs Python, torch, numpy, pytest, jaxtyping and what curvlab itself imports; nothing is installed. Without a GPU
it says so and ends. `--device cpu --quick` rehearses a part of it anywhere.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

from benchmarks.gpu.tree import ROOT, environment

MARK = "CURVLAB_GPU_CHILD"
TESTS, ALL = 270.0, 440.0
"""Seconds after which the tests are stopped, and after which no further table is begun."""


def main() -> int:
    """Run again in a process that sees the tree as installed; there, test, time and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="as torch calls it (default cuda)")
    parser.add_argument("--quick", action="store_true", help="a small part, whose times mean nothing")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "measurements", help="folder")
    arguments = parser.parse_args()
    if os.environ.get(MARK) != "1":
        with environment() as variables:
            command = [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:]]
            return subprocess.run(command, env={**variables, MARK: "1"}).returncode
    return run(arguments.device, arguments.output, arguments.quick)


def run(name: str, output: Path, quick: bool) -> int:
    """0 if there is no GPU or all tests passed, 1 otherwise."""
    import torch

    from benchmarks.gpu import numerics, report, speed

    if name == "foreign":  # a device of the tests, for rehearsals
        sys.path.insert(0, str(ROOT / "tests"))
        importlib.import_module("foreign_device").install()
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("There is no GPU that torch can use on this machine: nothing was run.")
        return 0
    start, ran = time.monotonic(), report.facts(device)
    print(f"{ran['device']}, torch {ran['torch']}: the numerical tests", flush=True)
    outcome = numerics.run_tests(name, os.environ, TESTS, numerics.SOME if quick else None)
    print(f"{outcome.passed} passed, {outcome.failed} failed in {outcome.seconds:.0f} s", flush=True)
    measured, missing = [], dict[str, str]()
    for title, measure in speed.tables(device, quick):
        print(title, flush=True)
        if time.monotonic() > start + ALL:
            missing[title] = "there was no time for it"
            continue
        try:
            measured.append(measure())
        except Exception as error:  # whatever one table meets, the others are wanted
            missing[title] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
    for path in report.write(output, report.Run(ran, outcome, measured, missing, time.monotonic() - start)):
        print(f"written: {path}")
    for failure, message in {**outcome.failures, **missing}.items():
        print(f"failed: {failure}: {message}")
    return 1 if outcome.failed or outcome.ended or missing else 0


if __name__ == "__main__":
    sys.exit(main())
