"""A process that opens one hostile file after another and says what came of each; its parent watches the clock.

Run as a script with a reader, `module:function`. It takes lines of JSON `{"path", "trust", "megabytes", "hostile"}` and
answers each with one: `{"outcome": "loaded" | "refused" | "crash" | "executed", "said": [...], "megabytes"}`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# What reading a file never does. Importing a library may (it looks for a compiler): the controls come first.
FORBIDDEN = frozenset(
    {"os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn"}
    | {"subprocess.Popen", "socket.connect", "socket.getaddrinfo"}
)


def read_all(path: Path, trust: bool) -> tuple[str, ...]:
    """Loads a model and every number of it; what there is to tell the user."""
    import torch

    from curvlab.formats.load import load

    torch.set_num_threads(1)
    checkpoint = load(path, trust=trust)
    for name in checkpoint.tensors:
        checkpoint.tensors[name].sum()
    return checkpoint.notes


def outcome(read: Callable[[Path, bool], tuple[str, ...]], path: Path, trust: bool) -> tuple[str, list[str]]:
    """One case: how it ended, and the sentences or the traceback."""
    from curvlab.errors import CurvlabError

    try:
        return "loaded", list(read(path, trust))
    except CurvlabError as error:
        return "refused", [str(error)]
    except BaseException:  # extensions written in Rust panic with one
        return "crash", [traceback.format_exc()[-6000:]]


class Watch:
    """Hears of the interpreter's own events, such as the start of a program."""

    def __init__(self) -> None:
        self.on, self.heard = False, ""
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        # Compressed HDF5 is tried in a process of curvlab's own (hdf5_chunks).
        own = event == "subprocess.Popen" and list(arguments[1][:3]) == [sys.executable, "-P", "-c"]
        if self.on and event in FORBIDDEN and not own:
            self.heard = f"{event}{arguments!r}"[:500]

    @contextlib.contextmanager
    def listening(self, on: bool) -> Iterator[None]:
        self.on, self.heard = on, ""
        try:
            yield
        finally:
            self.on = False


@contextlib.contextmanager
def bounded(megabytes: int) -> Iterator[None]:
    """No more than so much memory beyond what is taken; Linux alone says how much that is."""
    taken = Path("/proc/self/statm")
    if not taken.exists():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(taken.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + megabytes * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def main(reader: str) -> None:
    """Answers cases until the parent closes the pipe; whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, _, function = reader.partition(":")
    read = globals()[function] if module == "guarded_child" else getattr(importlib.import_module(module), function)
    watch = Watch()
    for line in sys.stdin:
        case = json.loads(line)
        with bounded(case["megabytes"]), watch.listening(case["hostile"]):
            how, said = outcome(read, Path(case["path"]), case["trust"])
            heard = watch.heard
        if heard:
            how, said = "executed", [heard]
        answers.write(json.dumps({"outcome": how, "said": said, "megabytes": peak_megabytes()}) + "\n")
        answers.flush()


def peak_megabytes() -> float:
    """Most memory of this process; Linux's ru_maxrss would begin with that of the process that started it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main(sys.argv[1])
