"""The numerical tests on a device: agreement with the CPU, and the dense oracles with everything on the device."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.tree import ROOT

AGREEMENT = "tests/devices/agreement.py"
ORACLES = ("tests/test_exact_statistics.py", "tests/test_identities.py", "tests/optim/test_directions.py")
SOME = "linear or conv2d-stride or embedding or twice or by-hand or test_optimizers or test_weights"
"""The agreement tests of a rehearsal, as `pytest -k` selects them."""


@dataclass(frozen=True)
class Outcome:
    """What became of the tests.

    Attributes:
        passed, failed: how many; what could not be set up counts as failed.
        seconds: wall time.
        failures: name -> last line of the message.
        ended: why not all of them ran, or None.
    """

    passed: int
    failed: int
    seconds: float
    failures: dict[str, str]
    ended: str | None = None


def run_tests(device: str, environment: Mapping[str, str], limit: float, only: str | None = None) -> Outcome:
    """Run them in a process of their own, for at most `limit` seconds.

    Args:
        device: as torch calls it.
        environment: variables under which the tree can be imported.
        limit: seconds; what has not run by then is told in `ended`.
        only: an expression of `pytest -k` that selects some of the agreement tests, without the oracles.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        # Newer or older versions than the pinned ones may warn of what is no fault of the numbers.
        command += ["-o", "filterwarnings=default", "--tb=short", f"--junitxml={report}", AGREEMENT]
        command += ["-k", only] if only else ORACLES
        variables = {**environment, "CURVLAB_TEST_DEVICE": device}
        ended = None
        try:
            done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired as stopped:
            printed = (stopped.stdout or b"").decode(errors="replace")
            return Outcome(printed.count("."), printed.count("F"), limit, {}, f"stopped after {limit:.0f} s")
        if not report.exists():
            lines = (done.stdout + done.stderr).strip().splitlines()
            ended = f"pytest ended with {done.returncode}: {lines[-1] if lines else 'it said nothing'}"
            return Outcome(0, 0, time.monotonic() - start, {}, ended)
        passed, failures = _read(report)
    return Outcome(passed, len(failures), time.monotonic() - start, failures, ended)


def _read(report: Path) -> tuple[int, dict[str, str]]:
    passed, failures = 0, {}
    for case in ElementTree.parse(report).iter("testcase"):
        bad = [child for child in case if child.tag in ("failure", "error")]
        if bad:
            message = (bad[0].get("message") or "").strip().splitlines()
            failures[f"{case.get('classname')}::{case.get('name')}"] = message[-1] if message else "it says nothing"
        else:
            passed += 1
    return passed, failures
