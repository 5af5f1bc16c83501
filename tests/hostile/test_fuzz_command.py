"""The fuzzer itself: valid models load, damage is refused or loads, and every kind of failure is noticed and kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hostile.fuzz import MOST_MEGABYTES, Tally, fuzz, main, repeated
from hostile.guard import MARKER, Guard
from hostile.mutations import mutated
from hostile.mutations_pickle import planted
from hostile.samples import SAMPLES

ROOT = Path(__file__).parent.parent.parent

# What a reader does with a damaged file, and how that must be called.
PLANTED = {
    "crash": "raise ValueError('not a sentence for users')",
    "hang": "import time; time.sleep(60)",
    "memory": "bytearray(4 * 2**30)",
    "death": "import os; os._exit(7)",
    "executed": "path.parent.joinpath('executed').mkdir()",
    "sentence": "return ('\\x1b[2J',)",
    "refused": "raise CurvlabError('one sentence')",
    "loaded": "return ()",
}
STARTS_A_PROGRAM = "import subprocess; subprocess.run(['true'])"


def reader(folder: Path, does: str) -> str:
    """A reader to the guard's taste that opens valid files and does something else with the others."""
    lines = ["from curvlab.errors import CurvlabError", "def read(path, trust):", "    if 'case' in path.parts:"]
    (folder / "reader.py").write_text("\n".join([*lines, f"        {does}", "    return ()"]))
    return "reader:read"


def fuzzed(tmp_path: Path, does: str, seconds: float = 20) -> Tally:
    with Guard(seconds, MOST_MEGABYTES, reader(tmp_path, does), str(tmp_path)) as guard:
        return fuzz(["safetensors"], 60, 0, tmp_path / "kept", guard, most_cases=1)["safetensors"]


@pytest.mark.parametrize("kind", PLANTED)
def test_what_a_reader_does_is_noticed(kind: str, tmp_path: Path) -> None:
    if kind == "memory" and not Path("/proc/self/statm").exists():
        pytest.skip("only Linux tells what memory is taken")
    tally = fuzzed(tmp_path, PLANTED[kind], seconds=3 if kind == "hang" else 20)
    assert tally.control.kind == "loaded"
    assert dict(tally.endings) == {kind: 1}
    assert tally.failed == (kind not in {"refused", "loaded"})
    assert len(tally.failures) == tally.failed


def test_a_started_program_is_noticed(tmp_path: Path) -> None:
    assert dict(fuzzed(tmp_path, STARTS_A_PROGRAM).endings) == {"executed": 1}


def test_what_failed_is_kept_and_opened_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ((kept, ending),) = fuzzed(tmp_path, PLANTED["crash"]).failures
    assert "ValueError: not a sentence for users" in ending.said
    with Guard(20, MOST_MEGABYTES) as guard:
        assert not repeated(kept, guard).failed  # the real reader makes a sentence of it
    assert main(["--repeat", str(kept)]) == 0
    assert capsys.readouterr().out.startswith(("refused: ", "loaded: "))


def test_the_command_damages_three_formats(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.hostile.fuzz", "--seconds", "60", "--cases", "40", "--keep", str(tmp_path)]
    formats = ["safetensors", "torch-zip", "h5-weights"]
    command += [word for name in formats for word in ("--format", name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    _, *lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == formats
    for line in lines:
        _, control, cases, refused, loaded, failed = line.split()
        assert control == "loaded"
        assert failed == "0"
        assert int(refused) + int(loaded) == int(cases) == 40
        assert int(refused) > 0


@pytest.mark.parametrize("name", ["safetensors", "curvlab", "torch-zip-closed", "torch-legacy", "onnx", "h5-keras-2"])
def test_damage_is_repeatable_and_changes_something(name: str, tmp_path: Path) -> None:
    path = SAMPLES[name].write(tmp_path)
    content = path.read_bytes()
    made = [mutated(path.name, content, Random(seed), "/marker") for seed in range(60)]
    assert made == [mutated(path.name, content, Random(seed), "/marker") for seed in range(60)]
    assert sum(damaged != content for damaged in made) > 50


def test_the_planted_code_runs_where_pickles_are_opened(tmp_path: Path) -> None:
    import pickle

    assert pickle.loads(b"\x80\x02K\x07" + planted(str(tmp_path / MARKER)) + b".") == 7
    assert (tmp_path / MARKER).is_dir()
