"""The package beside Keras: imports nothing early, is quiet without it, is found by its entry point."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import curvlab_keras  # noqa: F401 - registers the adapters once Keras is imported, which it is not yet

from curvlab.plugins import load

ROOT = Path(__file__).parents[1]


def _run(*lines: str) -> list[str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command, environment = [sys.executable, "-c", "\n".join(lines)], {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_package_does_not_import_keras() -> None:
    said = _run(
        "import sys, curvlab_keras",
        "assert 'keras' not in sys.modules",
        "import keras",
        "from curvlab.layers.layer import adapted",
        "print(adapted(keras.layers.Dense(3)), type(keras.__spec__.loader).__name__, len(sys.meta_path))",
    )
    assert said[:2] == ["True", "SourceFileLoader"]


def test_the_package_is_quiet_without_keras() -> None:
    said = _run(
        "import sys",
        "sys.modules['keras'] = None",
        "import curvlab_keras",
        "try:",
        "    import keras",
        "except ImportError:",
        "    print('missing')",
    )
    assert said == ["missing"]


def test_entry_point_registers_the_plugin() -> None:
    plugin = {p.name: p for p in load("curvlab.layers")}["keras"]
    assert plugin.error is None
    assert plugin.module == "curvlab_keras"
    assert plugin.distribution.startswith("curvlab-keras ")


def test_readme_example_runs() -> None:
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0
