"""What a control group says of its memory: cached files are free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curvlab.analyses import free_memory


@pytest.mark.parametrize(("statistics", "free"), [("anon 5\ninactive_file 700\n", 900), ("anon 5\n", 200), ("", 200)])
def test_cached_files_of_a_control_group_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statistics: str, free: int
) -> None:
    for name, text in {"memory.max": "1000", "memory.current": "800", "memory.stat": statistics}.items():
        (tmp_path / name).write_text(text)
    names = (str(tmp_path / "memory.max"), str(tmp_path / "memory.current"))
    monkeypatch.setattr(free_memory, "CGROUPS", (names,))
    assert free_memory.free_memory(torch.device("cpu")) == free


def test_a_control_group_without_a_limit_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    names = (str(tmp_path / "memory.max"), str(tmp_path / "memory.current"))
    monkeypatch.setattr(free_memory, "CGROUPS", (names,))
    assert free_memory.free_memory(torch.device("cpu")) > 2**20
