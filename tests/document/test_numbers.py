"""Numbers as text: read back, they are within what was shown."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curvlab.document.numbers import condition, count, operations, shape, share, short, size, with_error


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0, "0"), (7, "7"), (9999, "9999"), (10_000, "1.0e4"), (324_999, "3.2e5"), (3.24e-9, "3.2e-9")),
        *(
            (0.0123, "0.0123"),
            (1.0, "1"),
            (1.25, "1.25"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1234.5, "1234"),
            (-2.5, "-2.50"),
        ),
        *((None, "–"), (math.nan, "–"), (math.inf, "∞"), (-math.inf, "-∞")),
    ],
)
def test_short(value, text):
    assert short(value) == text


@given(st.floats(-1e300, 1e300))
def test_short_is_within_its_last_digit_and_narrow(value):
    text = short(value)
    assert math.isclose(float(text), value, rel_tol=0.051, abs_tol=0)
    assert len(text.lstrip("-")) <= 8


def test_conditions():
    assert condition(None) == "∞"
    assert condition(None, 3.25e5) == "∞ (3.2e5)"
    assert condition(12.5, 12.5) == "12.5"


def test_errors_are_in_per_cent():
    assert with_error("200", 200.0, 10.0) == "200 ±5%"
    assert with_error("200", 200.0, 0.1) == "200 ±<1%"
    assert with_error("∞", None, None) == "∞"
    assert with_error("200", 200.0, None) == "200"
    assert with_error("200", -200.0, 199.0) == "200 ±100%"
    assert with_error("200", 200.0, 2814.0) == "200 ±>100%"


def test_all_and_nothing_are_said_only_of_all_and_nothing():
    assert [share(part, 10**6) for part in (0, 1, 1000, 999_999, 10**6)] == ["0%", "<0.1%", "0.1%", "99.9%", "100%"]
    assert share(0, 0) == "nothing"


def test_counts_sizes_and_shapes():
    assert count(1234567) == "1,234,567"
    assert [size(b) for b in (0, 1023, 1024, 1536 * 1024, 3 * 2**30)] == ["0 B", "1023 B", "1 KiB", "1.5 MiB", "3 GiB"]
    assert [operations(w) for w in (12, 3.25e9)] == ["12", "3.25 G"]
    assert (shape((2, 3)), shape(())) == ("2x3", "scalar")
