"""Gates over a run's summary (`--fail-if test.accuracy<0.9`): what they may ask for, and what they say at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from curvlab.errors import CommandError
from curvlab.gates import parse


def summary_shape(metrics: Iterable[str]) -> dict[str, Any]:
    """The numbers of a summary.json that a gate can ask for, all of them 1."""
    part = dict.fromkeys(("loss", *metrics), 1.0)
    return {
        "steps": 1,
        "epochs": 1.0,
        "evaluated": 1,
        "train": part,
        "test": dict(part),
        "best": {"step": 1, "epoch": 1.0, "test": dict(part)},
        "seconds": dict.fromkeys(("train", "warm_start", "evaluation", "saving", "total"), 1.0),
        "skipped": 1,
        "memory": dict.fromkeys(("peak", "device_peak", "state"), 1),
        "model": {"parameters": 1},
        "problem": {"train_examples": 1, "test_examples": 1},
    }


def verdicts(texts: Iterable[str], summary: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """{"expression", "holds", "evidence"} of every gate; one that cannot be decided (a null) holds: no silent pass."""
    found = []
    for text in texts:
        try:
            verdict = parse(text).check({**summary, "layers": []})
            holds, evidence = verdict.holds, list(verdict.evidence)
        except CommandError as error:
            holds, evidence = True, [error.why]
        found.append({"expression": text, "holds": holds, "evidence": evidence})
    return tuple(found)


def check_paths(texts: Iterable[str], document: Mapping[str, Any]) -> None:
    """Refuse a gate with a path that leads nowhere in the document; a null is a number that does not exist.

    Raises:
        CommandError: the message names the closest key.
    """
    for text in texts:
        parse(text).check({**_with_numbers(document), "layers": []})


def _with_numbers(value: Any) -> Any:
    """The document with 1 in place of every null."""
    if isinstance(value, Mapping):
        return {key: _with_numbers(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_numbers(part) for part in value]
    return 1.0 if value is None else value
