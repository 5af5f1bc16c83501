"""Block Fisher: (F_l + λI)⁻¹ per layer with the exact block (ren 4.3.4): the reference that directions are compared
with."""

from __future__ import annotations

from typing import Unpack

from torch import nn

from curvlab.curvatures.block_fisher import BlockFisherCurvature, batches_kept
from curvlab.likelihoods import Likelihood
from curvlab.optim.hyperparameters import POSITIVE, check
from curvlab.optim.preconditioned import Preconditioned
from curvlab.optim.shared import Shared


class BlockFisher(Preconditioned):
    """p = (F + λI)⁻¹ vec(m), F the EMA of 1/N Σ vec(DW_n) vec(DW_n)ᵀ.

    Args:
        model: the network. A block of d parameters takes d² numbers, or d for every example in its average.
        likelihood: of its output ("categorical", "bernoulli", "gaussian"); not needed for the empirical Fisher.
        lr: α.
        damping: λ.
        fisher_type: targets of the output gradients: "mc" draws them from the model, "empirical" takes the data's (no
            second backward pass), "type-2" the exact expectation by one pass per column of the loss Hessian's root.
        mc_samples: drawn targets per example.
        max_memory: bytes for all blocks. While they fit they are dense; then those that are smaller so are kept as the
            gradients of the examples in the average, with the same directions; then MemoryBudgetError with both sizes.
        shared: momentum, weight_decay, decay, averaging, statistics_interval, inverse_interval, seed, groups.
    """

    name = "block-fisher"
    eager = False  # an inverse of a whole block costs as much as hundreds of steps

    def __init__(
        self,
        model: nn.Module,
        likelihood: str | Likelihood | None = None,
        *,
        lr: float = 0.03,
        damping: float = 1e-2,
        fisher_type: str = "mc",
        mc_samples: int = 1,
        max_memory: int = 2 * 2**30,
        **shared: Unpack[Shared],
    ) -> None:
        check(self.name, {"max_memory": max_memory}, {"max_memory": POSITIVE})
        curvature = BlockFisherCurvature(fisher_type, mc_samples, max_memory)
        super().__init__(model, curvature, likelihood, lr, damping, **shared)
        between = -(-self.schedule["inverse_interval"] // self.schedule["statistics_interval"])
        curvature.batches = batches_kept(self.schedule["decay"], between)
