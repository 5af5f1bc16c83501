"""What a saved state must be before any of it is used: types and ranges of every part, and of a line of metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from curvlab.field_types import MOST
from curvlab.training.clocks import NAMES as CLOCKS
from curvlab.training.settings import NAMES, wrong

Check = Callable[[Any], bool]
MAX_LETTERS = 4096
MAX_TABLES = 4


def misfit(state: Mapping[str, Any]) -> str | None:
    """The first part of a state that is not what a run saves, as a clause; None when all are.

    Whether it is of the network, the optimizer and the data that it is continued with is asked later, by `Run.resume`.
    """
    for name, (check, what) in _PARTS.items():
        if name not in state:
            return f"it has no part '{name}'"
        if not check(state[name]):
            return f"its part '{name}' is not {what}"
    if state["warm"] is False and state["step"] > 0:
        return "it took steps before its warm start"
    entry, best = state["entry"], state["best"]
    if any(one is not None and one["step"] > state["step"] for one in (entry, best)):
        return "its evaluation is of a later step"
    return _wrong_settings(state["settings"], state["used"])


def is_entry(value: Any) -> bool:
    """Whether it can be a line of metrics.jsonl (`entry`)."""
    if not isinstance(value, dict) or not {"step", "epoch", "train", "test", "seconds"} <= value.keys():
        return False
    parts = all(value[part] is None or _is_table_of(_is_number_or_none)(value[part]) for part in ("train", "test"))
    evaluated = value["train"] is None or "loss" in value["train"].keys() & (value["test"] or {}).keys()
    seconds = _is_table_of(_is_number_or_none)(value["seconds"]) and set(CLOCKS) <= value["seconds"].keys()
    rest = all(_is_number_or_none(one) for key, one in value.items() if key not in _NESTED)
    counted = _is_tree(value.get("counters"))
    counts = _is_count(value["step"]) and is_number(value["epoch"])
    return parts and evaluated and seconds and rest and counted and counts


_NESTED = ("train", "test", "seconds", "counters")


def _wrong_settings(settings: Mapping[str, Any], used: Mapping[str, Any]) -> str | None:
    found = wrong(settings) or wrong({**settings, "settings": used})
    return f"its settings are not those of a run ({found[0]})" if found else None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST


def is_number(value: Any) -> bool:
    """Whether it is a float, or a whole number that is one."""
    return type(value) is float or (type(value) is int and abs(value) <= MOST)


def _is_number_or_none(value: Any) -> bool:
    return value is None or is_number(value)


def _is_finite(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_LETTERS


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool) or _is_number_or_none(value) or _is_word(value)


def _is_plain(value: Any) -> bool:
    return _is_scalar(value) or (isinstance(value, list | tuple) and all(map(_is_scalar, value)))


def _is_table_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(_is_word(key) and check(one) for key, one in value.items())


def _is_tree(value: Any, depth: int = 0) -> bool:
    """Tables in tables of plain values."""
    if isinstance(value, dict) and depth < MAX_TABLES:
        return all(_is_word(key) and _is_tree(one, depth + 1) for key, one in value.items())
    return _is_plain(value)


def _is_settings(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != set(NAMES):
        return False
    return _is_table_of(_is_plain)(value["settings"]) and all(
        _is_plain(one) for key, one in value.items() if key != "settings"
    )


def _is_generators(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"cpu", "cuda"} or not isinstance(value["cuda"], list):
        return False
    return all(isinstance(one, Tensor) and str(one.dtype) == "torch.uint8" for one in (value["cpu"], *value["cuda"]))


def _is_best(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or set(value) != {"step", "epoch", "test"}:
        return False
    test = value["test"]
    whole = _is_table_of(_is_number_or_none)(test) and "loss" in test
    return _is_count(value["step"]) and is_number(value["epoch"]) and whole


def _is_losses(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"sum", "examples", "first", "bad"}:
        return False
    bad = value["bad"]
    fits = bad is None or (isinstance(bad, tuple) and len(bad) == 2 and _is_count(bad[0]) and is_number(bad[1]))
    return fits and is_number(value["sum"]) and _is_count(value["examples"]) and _is_number_or_none(value["first"])


def _is_seconds(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == set(CLOCKS) and all(_is_finite(one) for one in value.values())


_PARTS: dict[str, tuple[Check, str]] = {
    "settings": (_is_settings, "a table of settings"),
    "used": (_is_table_of(_is_plain), "a table of settings"),
    "fingerprint": (lambda one: isinstance(one, str) and bool(re.fullmatch("[0-9a-f]{64}", one)), "a sha256"),
    "logged": (_is_count, "a number of bytes"),
    "model": (_is_table_of(lambda _: True), "a table"),
    "optimizer": (_is_table_of(lambda _: True), "a table"),
    "scheduler": (_is_table_of(lambda _: True), "a table"),
    "generators": (_is_generators, "the states of random generators"),
    "warm": (lambda one: isinstance(one, bool), "true or false"),
    "step": (_is_count, "a number of steps"),
    "lr": (_is_finite, "a rate"),
    "entry": (lambda one: one is None or is_entry(one), "a line of metrics"),
    "best": (_is_best, "an evaluation"),
    "skipped": (_is_count, "a number of steps"),
    "losses": (_is_losses, "sums of losses"),
    "seconds": (_is_seconds, "seconds by activity"),
}


def alike(value: Any, like: Any) -> bool:
    """Whether nested tables and lists have the keys, lengths and types of `like`; a whole number may be a float."""
    if isinstance(like, dict):
        return isinstance(value, dict) and value.keys() == like.keys() and all(alike(value[k], like[k]) for k in like)
    if isinstance(like, list | tuple):
        same = isinstance(value, list | tuple) and len(value) == len(like)
        return same and all(map(alike, value, like))
    if isinstance(like, Tensor):
        return isinstance(value, Tensor) and value.shape == like.shape and value.dtype == like.dtype
    if isinstance(like, bool) or like is None or isinstance(like, str):
        return type(value) is type(like)
    return is_number(value)
