"""Record what curvlab computes today, through its command line and `curvlab.optim.create` alone.

    python -m tests.golden.record FOLDER      from the root of the repository

One JSON file each for profiles, comparisons and optimizers, in float64, with fixed seeds and one thread.
`python -m tests.golden.agree OLD NEW` compares two such folders.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before numpy and torch: the same code path of the linear algebra whatever the alignment of its arguments.
for variable, value in {"MKL_CBWR": "AUTO", "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}.items():
    os.environ.setdefault(variable, value)

COMPARISONS = {
    "default": ["--steps", "7"],
    "curvatures": [
        "--steps",
        "4",
        "--optimizers",
        "ekfac,tnt-pe=tnt,kbfgs,fop",
        "--set",
        "tnt-pe.statistic=per-example",
    ],
    "sweep": [
        "--steps",
        "3",
        "--layers",
        "fc[3-5]",
        "--optimizers",
        "kfac,lnb",
        "--damping",
        "1e-2:1:2",
        "--interval",
        "2",
    ],
    "saved": ["examples/digits-cnn.safetensors", "--samples", "200", "--optimizers", "kfac,ekfac,tnt,lnb,sgd"],
    "exact": ["--steps", "4", "--problem", "wine-mlp", "--baseline", "ggn", "--optimizers", "kfac,block-fisher"],
    "race": ["--mode", "training", "--problem", "wine-mlp", "--optimizers", "kfac,adam", "--epochs", "2"],
}


def record(folder: Path, only: str = "") -> Iterator[str]:
    """Write the recordings whose path contains `only`, and yield the path of each when it is there."""
    from .profiles import profiles
    from .trajectories import trajectories

    with tempfile.TemporaryDirectory() as scratch:
        for name, arguments in profiles(Path(scratch)):
            if only in (path := f"analyze/{name}.json"):
                yield _write(folder, path, _run("analyze", *arguments))
    for name, arguments in COMPARISONS.items():
        if only in (path := f"compare/{name}.json"):
            yield _write(folder, path, _run("compare", *arguments))
    if only.startswith("optim") or not only:
        for label, runs in trajectories():
            yield _write(folder, f"optim/{label}.json", runs)


def _run(command: str, *arguments: str) -> Any:
    """What the command line writes to stdout, as a value."""
    from curvlab_cli.main import run

    line, told, found = sys.argv, io.StringIO(), io.StringIO()
    # Of weights alone nothing is run, and the type of a run is refused as an option without effect.
    dtype = [] if len(arguments) == 1 and arguments[0].endswith(".pt") else ["--dtype", "float64"]
    sys.argv = ["curvlab", command, *arguments, *dtype, "--threads", "1", "--json", "-"]
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(found):
            run()
    except SystemExit as exit_:
        if exit_.code:
            raise RuntimeError(f"{' '.join(sys.argv)} ended with {exit_.code}: {told.getvalue()}") from exit_
    finally:
        sys.argv = line
    return json.loads(found.getvalue())


def _write(folder: Path, name: str, value: Any) -> str:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    return name


def main() -> None:
    """The command line of the recorder."""
    parser = argparse.ArgumentParser(description="Record curvlab's numbers of today.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="part of a recording's path, such as analyze/tied")
    given = parser.parse_args()
    begun = time.perf_counter()
    for name in record(given.folder, given.only):
        print(f"{time.perf_counter() - begun:7.1f} s  {name}", flush=True)


if __name__ == "__main__":
    main()
