"""The sweep of the damping: at an optimizer's own damping nothing changes, and afterwards all is as before."""

from __future__ import annotations

import pytest
import torch

from curvlab.comparison.compare import compare
from curvlab.comparison.damping_sweep import sweep
from curvlab.comparison.direction_study import DirectionStudy
from curvlab.comparison.optimizer_specs import OptimizerSpec
from curvlab.comparison.workload import DataOptions, of_problem

OPTIMIZERS = ["kfac", "ekfac", "tnt", "shampoo", "block-fisher", "adam", "rmsprop"]
ALL = [*OPTIMIZERS, "lnb"]


def panel_after_steps(steps: int) -> tuple[DirectionStudy, dict[str, torch.Tensor]]:
    workload = of_problem("wine-mlp", DataOptions(dtype="float64", batch_size=10))
    specs = [
        OptimizerSpec(f"{name}!", name, {"inverse_interval": 1} if name not in ("lnb", "adam", "rmsprop") else {})
        for name in ALL
    ]
    study = DirectionStudy(workload, specs, OptimizerSpec("b", "block-fisher", {"lr": 0.05, "inverse_interval": 1}), 0)
    batches = workload.closures()
    for _ in range(steps):
        closure = next(batches)
        seen = study.run(closure)
        for shadow in study.everyone():
            shadow.take(closure)
            shadow.propose()
    return study, seen.gradients


def test_at_its_own_damping_every_optimizer_has_its_own_direction() -> None:
    study, gradient = panel_after_steps(3)
    baseline = study.reference.direction(gradient)
    own = {label: one.optimizer.direction(gradient) for label, one in study.shadows.items()}
    expected = study.measure(own, baseline, gradient)
    for label in (f"{name}!" for name in OPTIMIZERS):
        shadow = study.shadows[label]
        assert shadow.optimizer.swept is not None
        value = shadow.optimizer.param_groups[0][shadow.optimizer.swept]
        point = sweep(study, gradient, [value])[label][0]
        assert point.cosine == pytest.approx(expected[label].cosine, abs=1e-9), label


def test_afterwards_all_is_as_before() -> None:
    study, gradient = panel_after_steps(3)
    before = {label: one.optimizer.direction(gradient) for label, one in study.shadows.items()}
    points = sweep(study, gradient, [1e-4, 1.0])
    assert points["kfac!"][0].mean != points["kfac!"][1].mean
    for label, one in study.shadows.items():
        after = one.optimizer.direction(gradient)
        for name, direction in before[label].items():
            torch.testing.assert_close(after[name], direction, rtol=0, atol=0)


def test_with_a_large_damping_kfac_and_the_baseline_are_the_gradient() -> None:
    """With λ → ∞ both are ∝ g (methods.md 6). TNT is not: a weight has two factors (ε²), its bias one (ε)."""
    found = compare("wine-mlp", ["sgd", "kfac"], steps=3, dtype="float64", batch_size=10, dampings=[1e12])
    assert found.reference is not None
    assert found["sgd"].damping == ()  # nothing to damp
    (point,) = found["kfac"].damping
    assert point["value"] == 1e12
    assert point["mean"] == pytest.approx(found.reference.damping[0]["mean"], abs=1e-5)


def test_lnb_is_solved_to_the_end_wherever_its_run_has_been() -> None:
    """The sweep's point does not depend on the ridge, and so on the last solution, of the run; it is that of M + γI."""
    points = []
    for ridge in (1e-3, 10.0):
        workload = of_problem("wine-mlp", DataOptions(dtype="float64", batch_size=10))
        lnb = OptimizerSpec("lnb", "lnb", {"ridge": ridge, "lr": 0.0})
        study = DirectionStudy(workload, [lnb], OptimizerSpec("b", "sgd", {"lr": 0.0}), 0)
        batches = workload.closures()
        for _ in range(3):
            closure = next(batches)
            seen = study.run(closure)
            for shadow in study.everyone():
                shadow.take(closure)
                shadow.propose()
        points.append(sweep(study, seen.gradients, [0.01])["lnb"][0].cosine)
        assert "solution" in study.shadows["lnb"].optimizer.state[workload.model.fc1.weight]
    assert points[0] == pytest.approx(points[1], abs=1e-9)


@pytest.mark.parametrize("name", ["fop", "kbfgs", "sgd"])
def test_what_has_no_damping_of_its_own_is_not_swept(name: str) -> None:
    found = compare("wine-mlp", [name, "kfac"], steps=2, batch_size=10, dampings=[0.1])
    assert found[name].damping == ()
    assert len(found["kfac"].damping) == 1
    assert found.damping_at == (1, 2)
