"""Schedules against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

from curvlab.errors import CommandError
from curvlab.training.schedule import parse_schedule

TOTAL, PER_EPOCH = 30, 5
THEIRS = {
    "constant": lambda o: lr_scheduler.ConstantLR(o, 1.0, 0),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL),
    "linear": lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, TOTAL),
    "step:2:0.1": lambda o: lr_scheduler.StepLR(o, 2 * PER_EPOCH, 0.1),
}


@pytest.mark.parametrize("text", THEIRS)
def test_rates_are_those_of_torch(text):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs, ours = THEIRS[text](optimizer), parse_schedule(text)
    for step in range(TOTAL):
        assert ours.at(step, TOTAL, PER_EPOCH) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    "text", ["", "cos", "step", "step:0:0.1", "step:2:0", "step:2:1.5", "step:2:-1", "step:2:0.1:3"]
)
def test_what_is_no_schedule(text):
    with pytest.raises(CommandError, match="not one of constant, cosine, linear, step"):
        parse_schedule(text)


def test_which_depend_on_the_end():
    assert [parse_schedule(text).knows_the_end for text in THEIRS] == [False, True, True, False]
