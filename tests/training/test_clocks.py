"""Clocks with a time of the test's own."""

from __future__ import annotations

import pytest

from curvlab.training.clocks import Clocks


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def step(self) -> float:
        self.now += 1
        return self.now

    def __call__(self) -> float:
        return self.now


def test_every_second_is_counted_once_and_train_holds_the_warm_start():
    time = Time()
    clocks = Clocks(now=time)
    time.now += 100  # of nothing
    with clocks.measure("train"):
        time.now += 1
        with clocks.measure("warm_start"):
            time.now += 2
            with clocks.measure("saving"):
                time.now += 4
        time.now += 8
        with clocks.measure("evaluation"):
            time.now += 16
        assert clocks.seconds() == {"train": 11, "warm_start": 2, "evaluation": 16, "saving": 4}
        time.now += 32
    time.now += 100
    assert clocks.seconds() == {"train": 43, "warm_start": 2, "evaluation": 16, "saving": 4}


def test_a_run_that_goes_on_adds_to_what_it_had():
    time = Time()
    before = {"train": 5.0, "warm_start": 2.0, "evaluation": 1.0, "saving": 0.5}
    clocks = Clocks(before, now=time)
    assert clocks.seconds() == before
    with clocks.measure("train"):
        time.now += 1
    assert clocks.seconds() == {**before, "train": 6.0}


def test_an_error_stops_the_clock():
    time = Time()
    clocks = Clocks(now=time)
    with pytest.raises(ZeroDivisionError), clocks.measure("train"):
        time.now = 1 / 0 if time.step() else 0
    time.now += 1
    assert clocks.seconds()["train"] == 1


def test_the_device_is_waited_for_at_every_change():
    calls = []
    clocks = Clocks(synchronize=lambda: calls.append(1))
    with clocks.measure("train"), clocks.measure("evaluation"):
        pass
    assert len(calls) == 4
