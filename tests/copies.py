"""Python processes that start at once: copies of one that has imported torch and waits.

A process of its own shows what a user meets: `python -m`, the exit code, the streams, a working directory, packages on
PYTHONPATH, and nothing that another test has left. Importing torch is most of its time; a copy has it already. A copy
shows neither what is imported nor what a variable changes at the start of Python or torch (PYTHONIOENCODING, MKL_CBWR):
tests of those, and of processes that are killed, start Python itself.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

ORIGINAL = Path(__file__).parent / "copies_original.py"


def run(
    *words: str,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    stdout: Any = None,
    stderr: Any = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """`python WORDS` in a copy, finished: `-m module ...`, `-c code ...` or `script.py ...`.

    Args:
        words: what would follow `python`.
        cwd: its working directory.
        env: its environment; this process's without it.
        stdout: a file or its descriptor, in place of being read.
        stderr: likewise.
        timeout: seconds until it is killed.
    """
    asked = {"words": words, "cwd": str(cwd or Path.cwd()), "env": dict(os.environ if env is None else env)}
    with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        request.write(json.dumps(asked).encode())
        request.flush()
        streams = [out if stdout is None else stdout, err if stderr is None else stderr]
        code = _finished([request, *streams], words, timeout)
        texts = [_text(out), _text(err)]
    return subprocess.CompletedProcess(words, code, *texts)


def _finished(files: list[Any], words: tuple[str, ...], timeout: float) -> int:
    original = _original()
    socket.send_fds(original, [b"."], [file if isinstance(file, int) else file.fileno() for file in files])
    (pid,) = struct.unpack("!i", _read(original))
    original.settimeout(timeout)
    try:
        (code,) = struct.unpack("!i", _read(original))
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        original.settimeout(None)
        _read(original)
        raise subprocess.TimeoutExpired(words, timeout) from None
    finally:
        original.settimeout(None)
    return int(code)


def _read(original: socket.socket) -> bytes:
    found = original.recv(4, socket.MSG_WAITALL)
    assert len(found) == 4, "the process that copies are made of has died"
    return found


@cache
def _original() -> socket.socket:
    """The socket of the process that copies are made of, started when the first one is wanted."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, str(ORIGINAL), str(theirs.fileno())]
    # One computing thread: a process with more could not be copied.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment)
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait(30)

    atexit.register(end)
    return ours


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", errors="replace")
