"""What a failed inverse leaves in place, and when failing becomes an error."""

from __future__ import annotations

import pytest

from curvlab.errors import NumericalError
from curvlab.optim.last_good import Kept, LastGood


def reason() -> str:
    return "a factor of size 20 has condition number 1e+20"


def unasked() -> str:
    raise AssertionError("the reason costs an eigendecomposition and must not be asked for")


def test_the_last_good_value_is_kept_until_the_fourth_failure_in_a_row() -> None:
    kept: LastGood[str] = LastGood()
    assert kept.update("fc1", 0, "a", unasked) == "a"
    assert [kept.update("fc1", step, None, unasked) for step in (20, 40, 60)] == ["a", "a", "a"]
    assert kept.blocks["fc1"] == Kept("a", 0, 3)
    with pytest.raises(NumericalError, match=r"'fc1' failed 4 times in a row, at step 80 again: .* 1e\+20; raise"):
        kept.update("fc1", 80, None, reason)
    with pytest.raises(NumericalError, match="5 times"):
        kept.update("fc1", 100, None, reason)


def test_a_success_starts_the_count_again() -> None:
    kept: LastGood[str] = LastGood()
    for step in range(3):
        assert kept.update("fc1", step, None, unasked) is None  # there has been none yet
    assert kept.update("fc1", 3, "b", unasked) == "b"
    assert [kept.update("fc1", step, None, unasked) for step in (4, 5, 6)] == ["b", "b", "b"]


def test_blocks_are_counted_apart() -> None:
    kept: LastGood[int] = LastGood()
    for step in range(3):
        kept.update("fc1", step, None, unasked)
        kept.update("fc2", step, step, unasked)
    assert kept.update("fc2", 3, None, unasked) == 2
    assert {name: block.failures for name, block in kept.blocks.items()} == {"fc1": 3, "fc2": 1}


def test_the_state_continues_elsewhere() -> None:
    first: LastGood[int] = LastGood()
    first.update("fc1", 0, 7, unasked)
    for step in range(1, 4):
        first.update("fc1", step, None, unasked)
    second: LastGood[int] = LastGood()
    second.blocks = {name: Kept(kept.value, kept.step, kept.failures) for name, kept in first.blocks.items()}
    with pytest.raises(NumericalError, match="step 4"):
        second.update("fc1", 4, None, reason)
