"""`python -m curvlab.comparison.race_child`: one run in this process, asked for and answered in lines of JSON.

stdin: one line {"settings": …, "training_seconds": …}; when it is closed, the race is over, and the process ends.
stdout: lines {"stage": …, "done": …, "total": …}, then one {"run": …} or {"failed": sentence}.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

EVERY = 0.1
"""Seconds between two lines of progress."""


def main() -> None:
    """Answer one request."""
    channel = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what libraries print is no answer
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def send(message: Mapping[str, Any]) -> None:
        channel.write(json.dumps(message, allow_nan=False) + "\n")
        channel.flush()

    last = time.monotonic()

    def report(stage: str, done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            send({"stage": stage, "done": done, "total": total})

    from curvlab.comparison.race_run import run_once
    from curvlab.document.json import plain
    from curvlab.errors import CurvlabError
    from curvlab.training.settings import TrainingSettings

    try:
        run = run_once(TrainingSettings(**request["settings"]), request["training_seconds"], report, own_process=True)
        send({"run": plain(run)})
    except CurvlabError as error:
        send({"failed": str(error)})


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
