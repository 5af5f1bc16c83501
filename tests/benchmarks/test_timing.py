"""How the benchmarks measure: paired ratios, both clocks, parts that time themselves, targets."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from benchmarks import targets
from benchmarks.factors import KFAC, ours
from benchmarks.profiles import passing
from benchmarks.timing import Row, Seconds, alternate, timed


def test_ratios_are_paired_by_round_and_the_first_round_only_warms_up() -> None:
    made = {"unit": iter([9.0, 1.0, 2.0, 4.0]), "double": iter([1.0, 2.0, 4.0, 4.0])}
    contenders = {name: (lambda values=values: Seconds(next(values), 0.5)) for name, values in made.items()}
    unit, double = alternate(contenders, 3)
    assert unit == Row("unit", 2.0, 1.0, (1.0, 1.0), 0.5, 1.0)
    assert double == Row("double", 4.0, 2.0, (1.0, 2.0), 0.5, 1.0)


def test_wall_time_passes_in_sleep_and_cpu_time_in_work() -> None:
    slept = timed(lambda: time.sleep(0.05))
    assert slept.wall >= 0.05
    assert slept.cpu < 0.045

    def work() -> None:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    assert timed(work).cpu >= 0.05


def test_what_is_timed_is_what_a_user_calls() -> None:
    torch.manual_seed(0)
    model, x, y = (
        nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)),
        torch.rand(8, 5),
        torch.randint(0, 3, (8,)),
    )
    factors = ours(model, x, y)[KFAC]()
    assert isinstance(factors, dict)
    assert factors["0"].input_factor.shape == (6, 6)
    start = Seconds.now()
    part = passing(model, x, y)()
    whole = Seconds.now() - start
    assert isinstance(part, Seconds)
    assert 0 < part.wall < whole.wall


def test_a_target_is_reached_or_missed(capsys: pytest.CaptureFixture[str]) -> None:
    targets.show([targets.Target("a", 1.0, 1.5), targets.Target("b", 2.0, 1.5)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["| a | 1.00 | ≤ 1.5 | reached |", "| b | 2.00 | ≤ 1.5 | missed |"]
