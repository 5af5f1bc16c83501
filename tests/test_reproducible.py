"""MKL_CBWR is set where processes start, and with it the place of operands in memory changes no bit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from curvlab.comparison.race_process import run_apart
from curvlab.reproducible import VARIABLE, reproducible
from curvlab.training.settings import TrainingSettings

BYTES = 64
"""The width of the widest vector registers, and the alignment that torch gives to what it allocates."""


def without(variable: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != variable}


def test_the_command_line_sets_it_before_torch_is_there() -> None:
    code = (
        "import os, sys, curvlab_cli.main as main\n"
        f"def app(): print(os.environ['{VARIABLE}'], 'torch' in sys.modules)\n"
        "main.app = app\nmain.run()"
    )
    told = [
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout.split()
        for env in (without(VARIABLE), {**os.environ, VARIABLE: "COMPATIBLE"})
    ]
    assert told == [["AUTO", "False"], ["COMPATIBLE", "False"]]


def test_a_race_sets_it_for_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    settings = TrainingSettings(optimizer="sgd", problem="wine-mlp", steps=1)
    code = f"import json, os; print(json.dumps({{'failed': os.environ['{VARIABLE}']}}))"
    run = run_apart(settings, None, lambda *_: None, (sys.executable, "-S", "-c", code))
    assert run.failed == "AUTO"
    assert VARIABLE not in os.environ


def test_what_the_user_has_set_stays() -> None:
    assert reproducible({VARIABLE: "AVX2"}) == {VARIABLE: "AVX2"}


def placed(x: Tensor, offset: int) -> Tensor:
    """A copy of `x` that begins `offset` numbers after a multiple of `BYTES`."""
    room = torch.empty(x.numel() + 2 * BYTES, dtype=x.dtype)
    begin = -(room.data_ptr() // x.element_size()) % (BYTES // x.element_size()) + offset
    return room[begin : begin + x.numel()].view(x.shape).copy_(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "inner", "columns"), [(6, 61, 6), (17, 33, 9), (3, 1000, 3), (1, 100, 7)])
def test_products_and_factorisations_do_not_depend_on_where_operands_lie(
    dtype: torch.dtype, rows: int, inner: int, columns: int
) -> None:
    """What optimizers and statistics are made of; without the variable most of these differ on AVX-512."""
    a, b = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
    s = torch.eye(rows, dtype=dtype) + a @ a.T / inner
    results = [
        [
            placed(a, i) @ placed(b, 3 * i % 16),
            placed(a, i) @ placed(b[:, 0].contiguous(), 5 * i % 16),
            placed(a, i).T @ placed(a, i),
            torch.linalg.eigh(placed(s, i)).eigenvectors,
            torch.cholesky_inverse(torch.linalg.cholesky(placed(s, i))),
            torch.linalg.solve_triangular(placed(s, i), placed(a, i), upper=False),
        ]
        for i in range(16)
    ]
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))
