"""`--set key=value`: numbers, truth values and words, and what is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curvlab.errors import CommandError
from curvlab.training.assignment import assignment, parse_value

NAMES = st.from_regex(r"[a-z][a-z_]{0,12}", fullmatch=True)


@given(NAMES, st.integers(-(10**17), 10**17))
def test_whole_numbers(name, value):
    assert assignment(f"{name}={value}") == (name, value)
    assert type(assignment(f"{name}={value}")[1]) is int


@given(NAMES, st.floats(allow_nan=False, allow_infinity=False))
def test_reals_survive(name, value):
    assert assignment(f" {name} = {value!r} ") == (name, value)


@given(st.text())
def test_any_text_is_an_assignment_or_a_sentence(text):
    if not re.fullmatch(r"\s*[A-Za-z][A-Za-z0-9_-]*\s*=.*\S.*", text, re.DOTALL):
        with pytest.raises(CommandError, match="NAME=VALUE"):
            assignment(text)
        return
    key, value = assignment(text)
    assert key.isidentifier()
    assert value == value  # never NaN


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9_-]*\s*=\s*[^\s]+", fullmatch=True))
def test_any_name_and_value_is_an_assignment(text):
    test_any_text_is_an_assignment_or_a_sentence.hypothesis.inner_test(text)


@given(st.text(min_size=1).filter(lambda text: text == text.strip()))
def test_quotes_make_words(text):
    assert parse_value(f'"{text}"') == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("none", None),
        ("'none'", "none"),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("+3", 3),
        ("factored", "factored"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("1_000", "1_000"),
        ("'1'", "1"),
        ("a=b", "a=b"),
        ("0.9,0.999", (0.9, 0.999)),
        ("[0.9, 0.999]", (0.9, 0.999)),
        ("(1, .5,)", "(1, .5,)"),
        ("1,a", "1,a"),
        ("'1,2'", "1,2"),
    ],
)
def test_values(text, value):
    assert assignment(f"key={text}") == ("key", value)
    assert type(assignment(f"key={text}")[1]) is type(value)


def test_a_dash_in_a_name():
    assert assignment("weight-decay=0.1") == ("weight_decay", 0.1)


@pytest.mark.parametrize("text", ["", "lr", "=1", "lr=", "1lr=2", "l r=1", "lr = "])
def test_what_is_no_assignment(text):
    with pytest.raises(CommandError, match="NAME=VALUE"):
        assignment(text)
