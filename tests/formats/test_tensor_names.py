"""Names of tensors: their order, the wrappers taken off them, and their way into messages."""

from __future__ import annotations

import random

import pytest

from curvlab.formats.names import last_word, natural_key, split, without_wrappers, words
from curvlab.quoting import listed, quoted, reason


def test_natural_order() -> None:
    ordered = ["a", "a.1", "a.2", "a.10", "a.10.b", "a2", "a010", "b", "b.0.x", "b.00.y", "b.1"]
    shuffled = random.Random(0).sample(ordered, len(ordered))
    assert sorted(shuffled, key=natural_key) == sorted(ordered, key=natural_key)
    assert [name for name in sorted(shuffled, key=natural_key) if name.startswith("a.")] == [
        "a.1",
        "a.2",
        "a.10",
        "a.10.b",
    ]


def test_natural_order_takes_numbers_of_any_length() -> None:
    names = ["x" + "9" * 5000, "x1", "1", "x", "", "0"]
    assert sorted(names, key=natural_key)[-1] == names[0]


def test_parts_of_names() -> None:
    assert split("encoder.0.weight") == ("encoder.0", "weight")
    assert split("weight") == ("", "weight")
    assert last_word("model.embeddings.0") == "embeddings"
    assert last_word("0.1") == ""
    assert words("x.LayerNorm_1") == {"layer", "norm"}
    assert words("conv2_BN") == {"conv", "bn"}


@pytest.mark.parametrize(
    ("names", "plain", "removed"),
    [
        (["a.w", "b.w"], ["a.w", "b.w"], []),
        (["module.a.w", "module.b.w"], ["a.w", "b.w"], ["module."]),
        (["module.module.a.w", "module.b.w"], ["module.a.w", "b.w"], ["module."]),
        (["module.module.a.w", "module.module.b.w"], ["a.w", "b.w"], ["module."]),
        (["module.a.w", "b.w"], ["module.a.w", "b.w"], []),
        (["module.a.w", "n_averaged"], ["a.w", "n_averaged"], ["module."]),
        (["_orig_mod.a.w"], ["a.w"], ["_orig_mod."]),
        (["a._orig_mod.b.w", "c.w"], ["a.b.w", "c.w"], ["_orig_mod."]),
        (["_orig_mod.module.a.w", "module._orig_mod.b.w"], ["a.w", "b.w"], ["_orig_mod.", "module."]),
        (["_orig_mod.a.w", "a.w"], ["_orig_mod.a.w", "a.w"], []),
        (["module.", "module.a"], ["module.", "module.a"], []),
        (["x._orig_mod"], ["x._orig_mod"], []),
        ([], [], []),
    ],
)
def test_wrappers(names: list[str], plain: list[str], removed: list[str]) -> None:
    found, taken = without_wrappers(names)
    assert list(found) == plain
    assert list(found.values()) == names
    assert taken == removed


def test_text_in_messages() -> None:
    assert quoted("conv.weight") == "'conv.weight'"
    assert quoted("größe/重み") == "'größe/重み'"
    assert quoted("\x1b[31m\n\u202e\ud800") == "'\\x1b[31m\\n\\u202e\\ud800'"
    assert len(quoted("x" * 10**6)) < 200
    assert listed("abcdefg", 3) == "'a', 'b', 'c' and 4 more"
    assert listed("ab") == "'a', 'b'"
    assert reason(ValueError("first\nsecond")) == "first"
    assert reason(ValueError()) == "ValueError"
