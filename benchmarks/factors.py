"""Feature moments, K-FAC factors and tensor-normal factors of one batch, against curvlinops, relative to one
gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from curvlinops import FisherType, KFACLinearOperator
from torch import Tensor, nn

from benchmarks.operations import batch, count
from benchmarks.timing import alternate, show
from curvlab.capture.survey import survey
from curvlab.likelihoods import likelihood
from curvlab.statistics.collect import collect
from curvlab.statistics.plan import Plan


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    """One gradient of the mean loss: the unit."""
    parameters = list(model.parameters())
    return lambda: torch.autograd.grad(nn.functional.cross_entropy(model(x), y), parameters)


def contenders(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed; the first is the unit."""
    found, chosen = survey(model, x[:2]), likelihood("categorical")

    def ours(plan: Plan) -> Callable[[], object]:
        return lambda: collect(model, found, [(x, y)], chosen, plan, torch.Generator().manual_seed(0))

    supported = [p for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) for p in m.parameters()]

    def theirs() -> object:
        operator = KFACLinearOperator(
            model, nn.CrossEntropyLoss(), supported, [(x, y)], fisher_type=FisherType.MC, check_deterministic=False
        )
        return operator.compute_kronecker_factors()

    return {
        "one gradient": gradient(model, x, y),
        "curvlab: moments + A + G (mc)": ours(Plan(output_gradients=True)),
        "curvlab: the same + per-example TN": ours(Plan(output_gradients=True, tensors="per-example")),
        "curvlab analyze's pass (float64 products, two halves, A + G + TN)": ours(
            Plan(output_gradients=True, tensors="per-example", dtype=torch.float64, halves=True, keep_rows=True)
        ),
        "curvlinops: A + G (mc)": theirs,
    }


def measure(title: str, network: tuple[nn.Module, Tensor, Tensor], rounds: int) -> None:
    """Time one network and print the table."""
    model, x, y = network
    operations = count(survey(model, x[:2]))
    rows = alternate(contenders(model, x, y), rounds)
    floor = operations.passes + operations.triangles
    show(
        f"{title} ({batch(x, model)})",
        rows,
        {
            rows[1].name: f"{floor:.2f} = {operations.passes:.2f} passes + {operations.triangles:.2f} products "
            f"({operations.passes + operations.products:.2f} with full squares)",
            rows[2].name: f"{floor + operations.weighted:.2f}" if "MLP" in title else "",
        },
    )
