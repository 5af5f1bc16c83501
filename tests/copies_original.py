"""The process that `copies.run` makes copies of: it imports what takes long, then forks for every request.

A request is three file descriptors over a socket: of JSON with "words", "cwd" and "env", of stdout and of stderr. The
answers are the copy's process number and, once it has ended, its exit code, negative for a signal.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import struct
import sys
import threading
import traceback
import types
import warnings
from pathlib import Path
from typing import Any, NoReturn

# torch asks for the last as soon as it makes an optimizer.
SLOW = ("torch", "torch._dynamo", "typer", "rich.table", "curvlab.analyses.analyze", "curvlab.reports.terminal")


def serve(asked: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """In a copy, the request and its files; in the original, nothing once nobody asks any more."""
    while True:
        message, files, _, _ = socket.recv_fds(asked, 1, 3)
        if not message:
            return None
        pid = os.fork()
        if pid == 0:
            asked.close()
            return json.loads(os.pread(files[0], os.fstat(files[0]).st_size, 0)), files
        for file in files:
            os.close(file)
        asked.sendall(struct.pack("!i", pid))
        asked.sendall(struct.pack("!i", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))


def become(words: list[str], cwd: str, env: dict[str, str], files: list[int]) -> None:
    """Go on as `python WORDS` would: its streams, folder, environment, search path and `__main__`."""
    for place, file in zip((1, 2), files[1:], strict=True):
        os.dup2(file, place)
    for file in files:
        os.close(file)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    # Where the tests run in the background, interrupts are ignored, and so they would be here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    first = "" if words[0] == "-c" else cwd if words[0] == "-m" else str(Path(words[0]).resolve().parent)
    sys.path[:1] = [first, *(part for part in env.get("PYTHONPATH", "").split(os.pathsep) if part)]
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    elif words[0] == "-m":
        sys.argv = [words[1], *words[2:]]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def end(request: dict[str, Any], files: list[int]) -> NoReturn:
    """Become it and exit as Python would, but without taking apart what the original has imported: 0.2 s."""
    code = 0
    try:
        become(**request, files=files)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if stop.code is not None and not isinstance(stop.code, int):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        code = 120  # as Python's own
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in SLOW:
            __import__(name)
    from curvlab.plugins import load

    gc.freeze()
    assert threading.active_count() == 1
    assert not load.cache_info().currsize, "plugins were imported before anybody's PYTHONPATH is known"
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        end(*request)
