"""Copies of a process behave as Python started anew: exit codes, streams, folders, paths, signals, time limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import copies
import pytest

# Python itself sets LC_CTYPE at its start where the locale is C.
SEEN = (
    "import os, sys, signal\n"
    "print(__name__, sys.argv, sys.path[0], os.getcwd(), os.environ.get('GIVEN'))\n"
    "print(sorted(os.environ.keys() - {'LC_CTYPE'}))\n"
    "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, sys.stdout.isatty(), sys.stdin.read())\n"
    "print('said', file=sys.stderr)\n"
)


@pytest.mark.parametrize(
    "words",
    [
        ("-c", SEEN, "a", "--b"),
        ("-m", "seen", "a"),
        ("seen.py", "--b"),
        ("-c", "import mine; print(mine.__file__)"),
        ("-c", "import sys; sys.exit(3)"),
        ("-c", "import sys; sys.exit('a sentence')"),
        ("-c", "import sys; sys.exit()"),
        ("-c", "import os; os.abort()"),
        ("-c", "import atexit; atexit.register(print, 'at the end'); print('first')"),
        ("-c", "class A: pass\nimport pickle; print(pickle.loads(pickle.dumps(A())).__class__)"),
    ],
    ids=lambda words: " ".join(words)[:40].replace("\n", " "),
)
def test_a_copy_does_what_python_does(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "seen.py").write_text(SEEN)
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "mine.py").write_text("")
    # Nothing of this process's environment that is not needed: other tests have been here.
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "OMP_NUM_THREADS") if name in os.environ}
    environment = {**kept, "GIVEN": "1", "PYTHONPATH": str(tmp_path / "found")}
    command = [sys.executable, *words]
    wanted = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # where tests run in the background it is ignored
    )
    done = copies.run(*words, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (wanted.returncode, wanted.stdout, wanted.stderr)


def test_an_error_is_a_traceback_and_code_1() -> None:
    done = copies.run("-c", "raise ValueError('no')")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ValueError: no\n")


def test_what_takes_too_long_is_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        copies.run("-c", "import time; time.sleep(60)", timeout=0.5)
    assert copies.run("-c", "print(1)").stdout == "1\n"


def test_a_copy_leaves_nothing_in_the_next() -> None:
    copies.run("-c", "import torch, sys; torch.set_num_threads(3); sys.modules['left'] = torch")
    done = copies.run("-c", "import torch, sys; print(torch.get_num_threads(), 'left' in sys.modules)")
    assert done.stdout == "1 False\n"
