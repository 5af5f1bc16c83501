"""Opens hostile files in a process that may hang, grow or die, and tells how each ended."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
READER = "guarded_child:read_all"
FIRST_SECONDS = 180  # libraries are imported meanwhile
MOST_LETTERS = 1500


class Ending(NamedTuple):
    """How a case ended.

    Attributes:
        kind: "loaded" or "refused"; else a failure: "crash", "hang", "memory", "death", "executed" or "sentence".
        said: the notes, the sentence of the refusal, or the traceback.
    """

    kind: str
    said: str

    @property
    def failed(self) -> bool:
        return self.kind not in {"loaded", "refused"}


class Guard:
    """One child process, started when it is needed and again after it died; used as a context."""

    def __init__(self, seconds: float, megabytes: int, reader: str = READER, searched: str = "") -> None:
        """The limits of one case, and the reader, `module:function`, to be found in the folder `searched`."""
        self.seconds, self.megabytes, self.reader, self.searched = seconds, megabytes, reader, searched
        self.child: subprocess.Popen[str] | None = None
        self.log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - lives as long as the guard

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.log.close()

    @property
    def fresh(self) -> bool:
        """Whether no child runs: the next one imports its libraries first."""
        return self.child is None

    def opened(self, path: Path, trust: bool = False, hostile: bool = True) -> Ending:
        """How opening the path ends. A control (not hostile) may take long, since it imports what it needs."""
        marker = path.parent / MARKER
        child = self.child or self._started()
        case = {
            "path": str(path),
            "trust": trust,
            "megabytes": self.megabytes if hostile else 2**20,
            "hostile": hostile,
        }
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(case) + "\n")
            child.stdin.flush()
        except BrokenPipeError:
            return self._died()
        ready, _, _ = select.select([child.stdout], [], [], self.seconds if hostile else FIRST_SECONDS)
        if not ready:
            self.stop()
            return Ending("hang", f"no answer in {self.seconds} s")
        line = child.stdout.readline()
        if not line:
            return self._died()
        answer = json.loads(line)
        said = "\n".join(answer["said"])
        if marker.exists():
            return Ending("executed", f"code of the file made {MARKER!r}; it was {answer['outcome']}: {said}")
        if answer["outcome"] == "crash" and "MemoryError" in said.splitlines()[-1]:
            return Ending("memory", said)
        if answer["megabytes"] > self.megabytes and hostile:
            self.stop()  # its peak would be that of every later case
            return Ending("memory", f"{answer['megabytes']:.0f} MiB at the peak; {answer['outcome']}: {said}")
        if answer["outcome"] in {"loaded", "refused"} and not all(map(_is_sentence, answer["said"])):
            return Ending("sentence", repr(said)[:4000])
        return Ending(answer["outcome"], said)

    def stop(self) -> None:
        """Ends the child, if one runs."""
        if self.child is not None:
            self.child.kill()
            self.child.communicate()
            self.child = None

    def _started(self) -> subprocess.Popen[str]:
        searched = os.pathsep.join(filter(None, (str(HERE), self.searched, os.environ.get("PYTHONPATH", ""))))
        self.child = subprocess.Popen(
            [sys.executable, str(HERE / "guarded_child.py"), self.reader],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "PYTHONPATH": searched, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        )
        return self.child

    def _died(self) -> Ending:
        assert self.child is not None
        code = self.child.wait()
        self.stop()
        self.log.seek(0)
        return Ending("death", f"the process ended with {code}: {self.log.read()[-3000:]}")


MARKER = "executed"
"""What planted code makes, beside the path that is opened."""


def _is_sentence(text: str) -> bool:
    return text.isprintable() and 0 < len(text) < MOST_LETTERS
