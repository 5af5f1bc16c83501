"""metrics.jsonl as it is read back: line by line, each one checked, since the file may come from another person's
run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from curvlab.errors import CheckpointError
from curvlab.quoting import quoted
from curvlab.training.entry import Entry
from curvlab.training.plain_files import opened, plain_file
from curvlab.training.state_schema import is_entry

MAX_LINE_BYTES = 2**20


def read_log(path: Path) -> Iterator[Entry]:
    """The lines of the file, none when it is not there.

    Raises:
        CheckpointError: a line is not one that a run writes, or the file is no plain file.
    """
    if not plain_file(path):
        return
    with opened(path, os.O_RDONLY) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = None
            if not is_entry(entry):
                raise CheckpointError(f"line {number} of {quoted(path)} is no line of metrics", do="remove it")
            yield entry
