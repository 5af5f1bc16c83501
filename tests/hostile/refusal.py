"""What a refusal must be: one printable sentence, soon, in little memory."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from curvlab.errors import CheckpointError
from curvlab.formats.load import load

MOST_SECONDS = 20
MOST_MEGABYTES = 300


def refusal(path: Path, **options: Any) -> str:
    """The sentence with which `load` refuses the path; anything else about the refusal fails the test."""
    start, before = time.monotonic(), _peak_megabytes()
    with pytest.raises(CheckpointError) as caught:
        load(path, **options)
    assert time.monotonic() - start < MOST_SECONDS
    assert _peak_megabytes() - before < MOST_MEGABYTES
    sentence = str(caught.value)
    assert sentence.isprintable(), sentence  # no line breaks, no escape sequences
    assert len(sentence) < 1500
    return sentence


def _peak_megabytes() -> float:
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
