"""Sizes as people write them, and plain lines of progress."""

from __future__ import annotations

import pytest
from curvlab_cli.progress import SECONDS, lines
from curvlab_cli.sizes import parse_size

from curvlab.errors import CommandError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * 2**30),
        ("8G", 8 * 2**30),
        ("8gb", 8 * 10**9),
        ("1.5MiB", 3 * 2**19),
        ("1024", 1024),
        (" 2 kB ", 2000),
        ("1TiB", 2**40),
    ],
)
def test_sizes(text, size):
    assert parse_size(text, "--max-memory") == size


@pytest.mark.parametrize("text", ["", "GiB", "8XB", "-1", "0", "0.5", "1e9", "8 G iB", "nan", "٨GiB x"])
def test_what_is_no_size(text):
    with pytest.raises(CommandError, match="--max-memory"):
        parse_size(text, "--max-memory")


def test_a_stage_is_a_line_and_a_long_one_says_how_far_it_is(capsys):
    now = [0.0]
    report = lines(lambda: now[0])
    for done in range(5):
        report("statistics", done, 100)
        now[0] += SECONDS / 2 + 0.1
    report("spectra", 0, None)
    report("spectra", 3, None)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        *("curvlab: statistics", "curvlab: statistics 2/100", "curvlab: statistics 4/100", "curvlab: spectra"),
    ]
