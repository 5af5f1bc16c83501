"""The public functions of `curvlab.curvature` on one batch, against curvlinops, relative to one gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.operations import batch, count
from benchmarks.targets import Target
from benchmarks.timing import alternate, show
from curvlab.capture.survey import survey
from curvlab.curvature import feature_moments, kfac_factors, tensor_normal_factors

GRADIENT, KFAC = "one gradient", "curvlab.curvature.kfac_factors (mc)"
WRITTEN = "the same, and every factor written out in float64"
PEER = "curvlinops: KFACLinearOperator.compute_kronecker_factors (mc)"


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    """One gradient of the mean loss: the unit."""
    parameters = list(model.parameters())
    return lambda: torch.autograd.grad(nn.functional.cross_entropy(model(x), y), parameters)


def ours(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Callable[[], object]]:
    """What a user calls; the first is the unit."""
    return {
        GRADIENT: gradient(model, x, y),
        KFAC: lambda: kfac_factors(model, x, y, likelihood="categorical"),
        WRITTEN: lambda: [
            (f.input_factor, f.gradient_factor) for f in kfac_factors(model, x, y, likelihood="categorical").values()
        ],
        "curvlab.curvature.feature_moments": lambda: feature_moments(model, x),
        "curvlab.curvature.tensor_normal_factors (mc, batch)": lambda: tensor_normal_factors(
            model, x, y, likelihood="categorical"
        ),
    }


def theirs(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    """The K-FAC factors of the layers that curvlinops supports."""
    from curvlinops import FisherType, KFACLinearOperator

    supported = [p for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) for p in m.parameters()]

    def run() -> object:
        operator = KFACLinearOperator(
            model, nn.CrossEntropyLoss(), supported, [(x, y)], fisher_type=FisherType.MC, check_deterministic=False
        )
        return operator.compute_kronecker_factors()

    return run


def measure(title: str, network: tuple[nn.Module, Tensor, Tensor], rounds: int) -> list[Target]:
    """Time one network and print the table."""
    model, x, y = network
    operations = count(survey(model, x[:2]))
    rows = alternate({**ours(model, x, y), PEER: theirs(model, x, y)}, rounds)
    floor = operations.passes + operations.triangles
    unavoidable = (
        f"{floor:.2f} = {operations.passes:.2f} passes + {operations.triangles:.2f} products "
        f"({operations.passes + operations.products:.2f} with full squares)"
    )
    title = f"{title} ({batch(x, model)})"
    show(title, rows, {KFAC: unavoidable})
    found = {row.name: row for row in rows}
    gradients, peer = found[KFAC].ratio, found[KFAC].ratio / found[PEER].ratio
    if "MLP" in title:
        return [Target(f"K-FAC factors, {title}, in gradients", gradients, 1.5)]
    return [Target(f"K-FAC factors, {title}, relative to curvlinops", peer, 0.7)]
