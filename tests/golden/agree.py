"""Compare two folders that `tests.golden.record` wrote.

    python -m tests.golden.agree OLD NEW

Numbers must agree to 1e-9 of their size; every disagreement is printed with its path, and then the exit code is 1. What
tells when, where and by which version it was recorded is left out; recordings and keys that only NEW has are counted
and not compared.

An eigenvalue that is much smaller than the largest is known only as well as rounding lets it: ‖E‖₂ ≤ c ε λ_max in any
backward-stable solver, by Weyl's inequality |δλ| ≤ ‖E‖₂. With c ε = 1e-13 (sizes up to 450 here): |δ min| ≤ 1e-13 max,
hence |δκ| ≤ 1e-13 κ². A standard error is the difference of two halves, so that it inherits their absolute error.
What a library computes in float32 whatever it is told ("float32" in the recording's name) is compared to 1e-9 ε32/ε64.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RELATIVE, BACKWARD = 1e-9, 1e-13
FLOAT32 = 2.0**29
PROVENANCE = frozenset(
    {"command", "environment", "curvlab", "versions", "path", "sha256", "seconds", "time_to_target", "train_seconds"}
    | {"peak_memory", "memory_before", "device_peak_memory", "state_bytes", "hashes", "source", "threads"}
)
"""Keys that tell of the run, not of the network."""


class Comparison:
    """Disagreements of two values, found while walking them together."""

    def __init__(self, relative: float) -> None:
        self.relative, self.backward = relative, BACKWARD * relative / RELATIVE
        self.numbers = self.added = 0
        self.worst = 0.0

    def walk(self, path: str, old: Any, new: Any, around: tuple[Any, ...] = ()) -> Iterator[str]:
        """Yield a sentence for everything below `path` in which `old` and `new` differ."""
        if isinstance(old, dict) and isinstance(new, dict):
            self.added += len(new.keys() - old.keys())
            for key in old:
                if key in PROVENANCE or key.endswith("seconds"):
                    continue
                if key not in new:
                    yield f"{path}.{key}: no longer there (was {_short(old[key])})"
                else:
                    yield from self.walk(f"{path}.{key}", old[key], new[key], (*around, old))
        elif isinstance(old, list) and isinstance(new, list):
            if len(old) != len(new):
                yield f"{path}: {len(old)} entries, now {len(new)}"
                return
            for i, (one, other) in enumerate(zip(old, new, strict=True)):
                yield from self.walk(f"{path}[{i}]", one, other, around)
        elif _number(old) and _number(new):
            self.numbers += 1
            off, allowed = abs(old - new), self._allowed(path, old, around)
            self.worst = max(self.worst, off / allowed if allowed else float(off > 0))
            if off > allowed:
                yield f"{path}: {old!r}, now {new!r} (off by {off / max(abs(old), 1e-300):.1e} of it)"
        elif old != new and not _text(old, new, path):
            yield f"{path}: {_short(old)}, now {_short(new)}"

    def _allowed(self, path: str, old: float, around: tuple[Any, ...]) -> float:
        parts = path.replace("[", ".").split(".")
        own = self.relative * abs(old) + self._backward(parts, old, around[-1] if around else {})
        if "stderr" in parts:
            at = next(i for i, one in enumerate(around) if "stderr" in one)
            value: Any = around[at]
            for key in parts[parts.index("stderr") + 1 :]:
                value = value.get(key, value.get("eigenvalues", {}).get(key)) if isinstance(value, Mapping) else value
            if _number(value):
                own += 2 * (self.relative * abs(value) + self._backward(parts, value, around[at]))
        return own

    def _backward(self, parts: list[str], value: float, beside: Any) -> float:
        if any(part.startswith("condition_number") for part in parts):
            return self.backward * value * value
        if "min" in parts or "quantiles" in parts:
            largest = (
                beside.get("max", beside.get("eigenvalues", {}).get("max", 0.0)) if isinstance(beside, dict) else 0.0
            )
            return self.backward * abs(largest or 0.0)
        return 0.0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(old: Any, new: Any, path: str) -> bool:
    """Notes are for people, and their words may change."""
    return isinstance(old, str) and isinstance(new, str) and ("note" in path or "evidence" in path)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def main() -> None:
    """The command line of the comparison."""
    parser = argparse.ArgumentParser(description="Compare two recordings.")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--relative", type=float, default=RELATIVE)
    parser.add_argument("--most", type=int, default=20, help="disagreements that are printed for each recording")
    parser.add_argument("--same", action="store_true", help="leave out what was not recorded in NEW")
    given = parser.parse_args()
    numbers = added = bad = 0
    worst = 0.0
    files = sorted(file.relative_to(given.old) for file in given.old.rglob("*.json"))
    if given.same:
        files = [file for file in files if (given.new / file).exists()]
    for file in files:
        if not (given.new / file).exists():
            found = [f"{file}: not recorded"]
        else:
            old, new = (json.loads((folder / file).read_text()) for folder in (given.old, given.new))
            comparison = Comparison(given.relative * (FLOAT32 if "float32" in file.name else 1.0))
            found = list(comparison.walk(str(file.with_suffix("")), old, new))
            numbers, added = numbers + comparison.numbers, added + comparison.added
            worst = max(worst, comparison.worst)
        bad += len(found)
        print(
            *found[: given.most],
            *([f"{file}: {len(found) - given.most} more"] if len(found) > given.most else []),
            sep="\n",
            end="\n" if found else "",
        )
    more = sum(1 for file in given.new.rglob("*.json") if file.relative_to(given.new) not in files)
    print(f"{len(files)} recordings, {numbers} numbers: {bad} disagree")
    print(f"the largest difference is {worst:.2g} of what is allowed")
    print(f"only in {given.new}: {more} recordings, {added} keys")
    sys.exit(bad > 0 or not files)


if __name__ == "__main__":
    main()
