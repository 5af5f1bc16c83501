"""Damages valid models of every format and opens them: each must load, or be refused in one sentence.

    python -m tests.hostile.fuzz --seconds 60 [--format onnx] [--seed N] [--keep FOLDER]
    python -m tests.hostile.fuzz --repeat FOLDER

A crash is anything else: a traceback, more than 20 s or 2 GiB, a dead process, a program started, code of the file run,
a sentence that is not printable. What crashed is kept with the command that opens it again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from .guard import MARKER, READER, Ending, Guard
from .mutations import mutated
from .refusal import MOST_SECONDS
from .samples import SAMPLES

MOST_MEGABYTES = 2048
KEPT_OF_A_KIND = 3
CASE = "case.json"


@dataclass
class Tally:
    """What came of the cases of one format.

    Attributes:
        control: how the valid model itself ended; anything but "loaded" is a failure.
        endings: kind of ending -> number of cases.
        seconds: spent on them.
        failures: folders of the inputs that were kept, and what was said.
    """

    control: Ending
    endings: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    failures: list[tuple[Path, Ending]] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return sum(self.endings.values())

    @property
    def failed(self) -> int:
        wrong = self.cases - self.endings["loaded"] - self.endings["refused"]
        return wrong + (self.control.kind != "loaded")


class Valid:
    """A valid model in memory, to be written anew for every case."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.sample = name, SAMPLES[name]
        folder.mkdir()
        self.place = self.sample.write(folder).relative_to(folder)
        self.files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}

    def written(self, folder: Path, random: Random | None = None) -> Path:
        """The model in a folder that is emptied before; with `random`, one of its files is damaged."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        inside = folder / "model"
        inside.mkdir()
        # Planted code makes the marker beside the path that is opened: beside a directory, or beside a file in it.
        path = inside / self.place
        damaged = random.choice(list(self.files)) if random else None
        for name, content in self.files.items():
            if name == damaged and random:
                content = mutated(name, content, random, str(path.parent / MARKER))
            (inside / name).write_bytes(content)
        return path


def fuzz(
    formats: Sequence[str], seconds: float, seed: int, keep: Path, guard: Guard, most_cases: int | None = None
) -> dict[str, Tally]:
    """Opens damaged models of the formats in turn until the time, or the number of cases of each, is over.

    Controls come first and their time does not count: libraries are imported meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="curvlab-fuzz-") as work:
        here = Path(work)
        valid = {name: Valid(name, here / name) for name in formats}
        tallies = {name: Tally(_control(valid[name], here, guard)) for name in formats}
        random = {name: Random(f"{seed} {name}") for name in formats}
        ready, end = set(formats), time.monotonic() + seconds
        while time.monotonic() < end:
            waiting = [name for name in formats if most_cases is None or tallies[name].cases < most_cases]
            if not waiting:
                break
            name = min(waiting, key=lambda name: tallies[name].seconds)
            tally = tallies[name]
            if guard.fresh:
                ready.clear()
            if name not in ready:
                _control(valid[name], here, guard)
                ready.add(name)
            start = time.monotonic()
            path = valid[name].written(here / "case", random[name])
            ending = guard.opened(path, valid[name].sample.trust)
            tally.endings[ending.kind] += 1
            tally.seconds += time.monotonic() - start
            if ending.failed:
                _keep(path, here / "case", name, ending, keep / f"{name}-{seed}-{tally.cases}", tally)
    return tallies


def _control(valid: Valid, here: Path, guard: Guard) -> Ending:
    return guard.opened(valid.written(here / "control"), valid.sample.trust, hostile=False)


def _keep(path: Path, case: Path, name: str, ending: Ending, kept: Path, tally: Tally) -> None:
    """Stores an input, unless enough of its kind are there: the same kind of ending with the same last line."""
    same = [1 for _, other in tally.failures if _summary(other) == _summary(ending)]
    if len(same) >= KEPT_OF_A_KIND:
        return
    shutil.copytree(case / "model", kept, dirs_exist_ok=True, symlinks=True)
    shutil.rmtree(kept / MARKER, ignore_errors=True)
    facts = {"path": str(path.relative_to(case / "model")), "format": name, "kind": ending.kind, "said": ending.said}
    (kept / CASE).write_text(json.dumps(facts, indent=1))
    tally.failures.append((kept, ending))


def _summary(ending: Ending) -> str:
    lines = ending.said.strip().splitlines()
    return f"{ending.kind}: {lines[-1][:300] if lines else ''}"


def repeated(kept: Path, guard: Guard) -> Ending:
    """How opening a kept input ends."""
    facts = json.loads((kept / CASE).read_text())
    sample = SAMPLES[facts["format"]]
    with tempfile.TemporaryDirectory(prefix="curvlab-fuzz-") as work:
        valid = Valid(facts["format"], Path(work) / "valid")
        _control(valid, Path(work), guard)
    return guard.opened(kept / facts["path"], sample.trust)


def report(tallies: dict[str, Tally]) -> str:
    """One line for each format, then each failure with its command."""
    lines = [f"{'format':<22}{'control':>9}{'cases':>8}{'refused':>9}{'loaded':>8}{'failed':>8}"]
    for name, tally in tallies.items():
        counts = (tally.cases, tally.endings["refused"], tally.endings["loaded"], tally.failed)
        lines.append(f"{name:<22}{tally.control.kind:>9}{counts[0]:>8}{counts[1]:>9}{counts[2]:>8}{counts[3]:>8}")
    for name, tally in tallies.items():
        if tally.control.kind != "loaded":
            lines.append(f"{name}: the valid model itself: {tally.control.said}")
        for kept, ending in tally.failures:
            lines += [f"{name}: {_summary(ending)}", f"    python -m tests.hostile.fuzz --repeat {kept}"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 when anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="time for all formats together")
    parser.add_argument("--format", action="append", choices=list(SAMPLES), help="one format only; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="other damage")
    parser.add_argument("--cases", type=int, help="at most so many of each format")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "curvlab-fuzz", help="for failures")
    parser.add_argument("--repeat", type=Path, help="open an input that was kept")
    parser.add_argument("--limit", type=float, default=MOST_SECONDS, help="seconds that one file may take")
    parser.add_argument("--reader", default=READER, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    with Guard(given.limit, MOST_MEGABYTES, given.reader) as guard:
        if given.repeat:
            ending = repeated(given.repeat, guard)
            print(f"{ending.kind}: {ending.said}")
            return int(ending.failed)
        tallies = fuzz(given.format or list(SAMPLES), given.seconds, given.seed, given.keep, guard, given.cases)
    print(report(tallies))
    return int(any(tally.failed for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
