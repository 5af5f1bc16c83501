"""Networks that torch compiles, and layers that another function runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.errors import CurvlabError
from curvlab.optim import EKFAC, KBFGS, KFAC, LNB, TNT, BlockFisher

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("make", [KFAC, EKFAC, TNT, BlockFisher])
def test_a_layer_that_another_function_runs_is_an_error(make: Any) -> None:
    """Its block would follow plain momentum under the method's name."""

    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.behind = nn.Linear(3, 4), nn.Linear(4, 2), False

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.a(x)
            if self.behind:
                weight, bias = self.b.weight * 1.0, self.b.bias * 1.0
                return F.linear(torch.tanh(hidden), weight, bias)
            return self.b(torch.tanh(hidden))

    torch.manual_seed(0)
    model, x, y = Changing(), torch.randn(6, 3), torch.randint(0, 2, (6,))
    optimizer = make(model, "categorical")
    optimizer.step(lambda: F.cross_entropy(model(x), y))
    model.behind = True
    with pytest.raises(CurvlabError, match="was not seen running"):
        optimizer.step(lambda: F.cross_entropy(model(x), y))


@pytest.mark.parametrize("make", [KFAC, KBFGS, LNB])
@pytest.mark.parametrize("way", ["whole", "layers"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_networks_are_measured_as_plain_ones(make: Any, way: str) -> None:
    """Steps that are recorded run uncompiled; `aot_eager` compiles without a compiler."""
    steps = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        x, y = torch.randn(6, 3), torch.randint(0, 2, (6,))
        called: Any = model
        if compiled and way == "whole":
            called = torch.compile(model, backend="aot_eager")
            called(x)
        elif compiled:
            model[0].compile(backend="aot_eager")
            model[2].compile(backend="aot_eager")
            model(x)
        optimizer = make(model, "categorical") if make is KFAC else make(model)
        for _ in range(3):
            optimizer.step(lambda: F.cross_entropy(called(x), y))  # noqa: B023
        steps.append([p.detach().clone() for p in model.parameters()])
        assert set(optimizer.coverage().values()) == {optimizer.name}
    for plain, other in zip(*steps, strict=True):
        torch.testing.assert_close(plain, other)
