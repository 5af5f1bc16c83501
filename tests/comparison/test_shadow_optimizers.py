"""An optimizer of a package takes part in comparisons by its traits and by the methods of `Optimizer` alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.comparison.at_weights import at_weights
from curvlab.comparison.damping_sweep import sweep
from curvlab.comparison.direction_study import DirectionStudy
from curvlab.comparison.optimizer_specs import OptimizerSpec
from curvlab.comparison.shadow_optimizer import ShadowOptimizer
from curvlab.comparison.shared_batch import SharedBatch
from curvlab.comparison.trajectory import along_trajectory
from curvlab.comparison.workload import DataOptions, of_problem
from curvlab.likelihoods import likelihood
from curvlab.optim import create
from curvlab.optim.core import Named, Optimizer


class Scaled(Optimizer):
    """p = g/s, and a list of what was asked of it."""

    def __init__(self, model: nn.Module, lr: float = 0.1, scale: float = 2.0, weight_decay: float = 0.0) -> None:
        super().__init__(model, {"lr": lr, "scale": scale, "weight_decay": weight_decay})
        self.told: list[Any] = []

    def update(self, gradients: Named) -> Named:
        self.told.append("update")
        return self.direction(gradients)

    def direction(self, gradients: Named) -> Named:
        return {name: g / self.param_groups[0]["scale"] for name, g in gradients.items()}

    def learn(self) -> None:
        self.told.append(next(iter(self.parameters())).detach().clone())


class OneStep(Scaled):
    needs_closure = batches_joined = True


class Warmed(Scaled):
    warms = True

    def average(self, gradients: Named, examples: int) -> None:
        self.told.append("warming" if self.warming else "average")

    def settle(self) -> None:
        self.told.append("settle")


class Swept(Scaled):
    swept = "scale"

    @contextmanager
    def damped(self, value: float) -> Iterator[None]:
        with super().damped(value):
            self.told.append(self.param_groups[0]["scale"])
            yield
        self.told.append(self.param_groups[0]["scale"])


Joining = Callable[[str, type[Optimizer]], None]


def study_of(joining: Joining, kind: type[Optimizer]) -> DirectionStudy:
    joining("mine", kind)
    workload = of_problem("wine-mlp", DataOptions(dtype="float64", batch_size=30))
    return DirectionStudy(workload, [OptimizerSpec("x", "mine")], OptimizerSpec("b", "sgd", {"lr": 0.1}), 0)


def told(study: DirectionStudy) -> list[Any]:
    optimizer = study.shadows["x"].optimizer
    assert isinstance(optimizer, Scaled)
    return optimizer.told


def silent(*_: object) -> None:
    """No progress."""


@pytest.mark.parametrize(("kind", "steps"), [(Scaled, 4), (OneStep, 1)])
def test_at_weights_that_stay_batches_are_a_step_each_or_all_of_them_one(
    joining: Joining, kind: type[Scaled], steps: int
) -> None:
    study = study_of(joining, kind)
    measured = at_weights(study, (), silent)
    assert measured.steps == 4
    assert told(study).count("update") == steps
    assert study.shadows["x"].optimizer.steps == steps
    # p is along the gradient, and so is the baseline's.
    assert list(measured.agreements["x"][0].cosine.values()) == pytest.approx([1.0, 1.0])


def test_a_warm_start_is_settled_once_its_batches_are_through(joining: Joining) -> None:
    study = study_of(joining, Warmed)
    along_trajectory(study, 2, (), silent, warm=True)
    seen = [one for one in told(study) if isinstance(one, str)]
    assert seen == [*["warming"] * 4, "settle", "average", "update", "average", "update"]


def test_it_learns_once_the_baseline_has_moved_the_weights(joining: Joining) -> None:
    study = study_of(joining, Scaled)
    along_trajectory(study, 3, (), silent, warm=False)
    weights = [one for one in told(study) if isinstance(one, Tensor)]
    assert len(weights) == 3
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[-1], next(iter(study.model.parameters())))


def test_a_sweep_asks_the_optimizer_for_directions_of_another_damping(joining: Joining) -> None:
    study = study_of(joining, Swept)
    along_trajectory(study, 1, (), silent, warm=False)
    del told(study)[:]
    points = sweep(study, {name: torch.ones_like(p) for name, p in study.model.named_parameters()}, (0.5, 4.0))
    assert told(study) == [0.5, 2.0, 4.0, 2.0]
    assert [point.value for point in points["x"]] == [0.5, 4.0]


@pytest.mark.parametrize("name", ["kbfgs", "kbfgsl-20"])
def test_kbfgs_warm_starts_with_the_masks_that_all_have_seen(name: str) -> None:
    """Each batch runs with the dropout masks of the shared run: A is the same as of a warm start that draws them."""
    settings = {"lr": 0.1, "damping": 0.1}
    found = []
    for shared in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3)).double()
        x, y = torch.randn(20, 4).double(), torch.randint(0, 3, (20,))
        optimizer = create(name, model, likelihood="categorical", **settings)
        torch.manual_seed(1)

        def closure(model: nn.Module = model, x: Tensor = x, y: Tensor = y) -> Tensor:
            return F.cross_entropy(model(x), y)

        if shared:
            batch = SharedBatch(model, likelihood("categorical"), 0)
            shadow = ShadowOptimizer(optimizer, batch)
            batch.run(closure)
            drawn = torch.get_rng_state()
            shadow.warm(closure)
            assert torch.equal(torch.get_rng_state(), drawn)
            shadow.settle()
        else:
            optimizer.warm_start([closure])
        found.append(optimizer.inverses.states)  # type: ignore[attr-defined]
    assert found[0].keys() == found[1].keys() == {"0", "2"}
    for layer, state in found[0].items():
        torch.testing.assert_close(state["input"], found[1][layer]["input"], rtol=1e-12, atol=1e-12)
