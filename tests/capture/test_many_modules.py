"""A survey of thousands of modules looks at each a bounded number of times."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch
from torch import nn

from curvlab.capture.survey import components, survey


def lines_run(modules: int) -> int:
    """Lines of `survey.py` that a survey of a chain of so many layers runs, generator expressions included."""
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(modules)))
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.endswith("survey.py"):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = survey(model, torch.ones(1, 2))
        assert len(components(found.blocks)) == modules
    finally:
        sys.settrace(before)
    return count


def test_twice_the_modules_are_twice_the_work() -> None:
    lines_run(2)
    few, many = lines_run(40), lines_run(80)
    assert many < 2.1 * few


def test_ties_are_in_the_models_order() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.a, self.b = (nn.Linear(3, 3) for _ in range(3))
            self.a.bias = self.b.bias = self.c.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(self.b(self.c(x)))

    found = survey(Tied(), torch.ones(1, 3))
    names = list(found.blocks)
    for name, block in found.blocks.items():
        assert block.tied == [other for other in names if other != name]
    assert components(found.blocks) == [names]
