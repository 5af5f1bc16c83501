"""--config files that take time, memory or the terminal: refused in one sentence that says which bound they pass."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curvlab.bounded_text import Bounds, check_toml
from curvlab.errors import CommandError
from curvlab.training.configuration import configured, fresh


def refusal(path: Path) -> str:
    fresh({"optimizer": "sgd"})  # imports, and the catalogue of optimizers
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(CommandError) as caught:
            fresh(configured({"optimizer": "sgd"}, [], path))
        assert time.process_time() - start < 2
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 10_000
    assert "set_int_max_str_digits" not in sentence
    return sentence


TEXTS = {
    "digits": ("seed = " + "9" * 4301, "a number in it has 4,301 digits, and at most 100 are read"),
    "hexadecimal digits": ("seed = 0x" + "f" * 200, "a number in it has 202 digits"),
    "dotted key": (".".join("a" * 20_000) + " = 1", "nested more than 7 deep"),
    "spaced key": (" . ".join("a" * 9_000) + " = 1", "nested more than 7 deep"),
    "quoted key": (".".join(['"a"'] * 9_000) + " = 1", "nested more than 7 deep"),
    "dotted table": ("[" + ".".join("a" * 20_000) + "]", "nested more than 7 deep"),
    "tables in tables": ("".join(f"[{'.'.join('a' * n)}]\n" for n in range(1, 100)), "nested more than 7 deep"),
    "arrays": ("a = " + "[" * 30_000, "nested more than 7 deep"),
    "inline tables": ("a = " + "{a=" * 20_000, "nested more than 7 deep"),
    "keys": ("".join(f"a{n} = 1\n" for n in range(5_000)), "more than 1,000 keys"),
    "unknown keys": ("".join(f"a{n} = 1\n" for n in range(900)), "and 870 more"),
    "word": (f"data = '{'a' * 5000}'", "a word in it has 5,002 letters"),
    "quotes": ("a = " + '\\"' * 30_000, "a word in it has 59,999 letters"),
    "open quotes": ("a = " + '"""' + "a" * 60_000, "a word in it has 60,003 letters"),
    "large": ("#" * 70_000, "it has 70,000 bytes, and at most 65,536 are read"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(tmp_path: Path, name: str) -> None:
    text, words = TEXTS[name]
    (tmp_path / "run.toml").write_text(text)
    assert words in refusal(tmp_path / "run.toml")


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path / "link"):
        assert "is not read: it is no regular file but a pipe, a device or a socket" in refusal(path)
    assert "Is a directory" in refusal(tmp_path) or "no regular file" in refusal(tmp_path)


def test_a_file_that_says_less_than_it_holds(tmp_path: Path) -> None:
    """/proc has files of size 0 with content; such a one is small, or is cut at the bound."""
    assert "is not TOML" in refusal(Path("/proc/self/status"))


def test_values_that_no_processor_has(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    for key, value in (("threads", 10**9), ("steps", 2**80), ("batch_size", 2**70), ("max_memory", 2**90)):
        path.write_text(f"{key} = {value}\n")
        assert f"{key} is {value}" in refusal(path)
    path.write_text(f'device = "cuda:{"9" * 30}"\n')
    assert "device is 'cuda:999" in refusal(path)


@given(st.text(alphabet="a1.=[]{}\"'\\#\n ,_-é", max_size=60))
def test_the_scan_takes_anything(text: str) -> None:
    check_toml(text, Bounds(depth=99))


WITHIN = r'''
# [[[[[[[[[[ a comment . . . . . . . . . .
optimizer = "kfac"
target = "test.accuracy > 0.9 and ((((((((1))))))))"
fail_if = ["a.b.c.d.e.f.g.h.i.j > 1", 'x [[[[[[[[[']
data = """
a.b.c.d.e.f.g.h.i.j = [[[[[[[[[[[[[[[[ \""" """
max_seconds = 1_000.5
[optimizer]
name = "kfac"
lr = 1e-3
'''


def test_what_stands_in_words_and_comments_is_no_nesting() -> None:
    check_toml(WITHIN, Bounds())
