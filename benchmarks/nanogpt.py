"""K-FAC factors of a small GPT with a table that is the output layer as well, against one gradient and curvlinops."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.factors import GRADIENT, KFAC
from benchmarks.networks import gpt
from benchmarks.operations import batch
from benchmarks.targets import Target
from benchmarks.timing import alternate, show
from curvlab.curvature import kfac_factors
from curvlab.likelihoods import Categorical

VOCABULARIES = (65, 50_304)
"""Letters of a small text, and the words of GPT-2's tokenizer, rounded up."""
PEER = "curvlinops: KFACLinearOperator.compute_kronecker_factors (mc), linear layers of the blocks alone"


class ClassesSecond(nn.Module):
    """Scores as torch's cross entropy has them: (examples, classes, positions)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """The model's scores, with their axes in that order."""
        scores: Tensor = self.model(tokens).movedim(-1, 1)
        return scores


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    """One gradient of the mean loss over all positions: the unit."""
    parameters = list(model.parameters())
    return lambda: torch.autograd.grad(nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()), parameters)


def theirs(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    """The factors of the linear layers whose weight is theirs alone."""
    from curvlinops import FisherType, KFACLinearOperator

    wrapped = ClassesSecond(model)
    table = model.wte.weight
    supported = [
        p for m in model.modules() if isinstance(m, nn.Linear) and m.weight is not table for p in m.parameters()
    ]

    def run() -> object:
        operator = KFACLinearOperator(
            wrapped, nn.CrossEntropyLoss(), supported, [(x, y)], fisher_type=FisherType.MC, check_deterministic=False
        )
        return operator.compute_kronecker_factors()

    return run


def measure(rounds: int) -> list[Target]:
    """Time both vocabularies and print the tables."""
    found = []
    for vocabulary in VOCABULARIES:
        model, x, y = gpt(vocabulary)
        rows = alternate(
            {
                GRADIENT: gradient(model, x, y),
                KFAC: lambda model=model, x=x, y=y: kfac_factors(model, x, y, likelihood=Categorical(class_axis=-1)),
                PEER: theirs(model, x, y),
            },
            rounds,
        )
        title = f"nanoGPT, 6 layers, 384 wide, {vocabulary:,} words, 128 positions ({batch(x, model)})"
        show(title, rows, {})
        ratio = next(row.ratio for row in rows if row.name == KFAC)
        found.append(Target(f"K-FAC factors, {title}, in gradients", ratio, 1.7))
    return found
