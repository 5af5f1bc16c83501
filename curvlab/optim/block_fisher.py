"""Block Fisher: (F_l + λI)⁻¹ per layer with the exact dense block (ren 4.3.4): the reference that directions are
compared with."""

from __future__ import annotations

from typing import Unpack

from torch import nn

from curvlab.curvatures.block_fisher import BlockFisherCurvature
from curvlab.likelihoods import Likelihood
from curvlab.optim.preconditioned import Preconditioned, Shared


class BlockFisher(Preconditioned):
    """p = (F + λI)⁻¹ vec(m), F the EMA of 1/N Σ vec(DW_n) vec(DW_n)ᵀ.

    Args:
        model: the network; blocks of p parameters take p² numbers.
        likelihood: of its output ("categorical", "bernoulli", "gaussian"); not needed when `empirical`.
        lr: α.
        damping: λ.
        empirical: the data's targets instead of drawn ones.
        max_memory: bytes for all blocks; more is a MemoryBudgetError with both sizes.
        shared: momentum, weight_decay, decay, averaging, statistics_interval, inverse_interval, seed, groups.
    """

    name = "block-fisher"

    def __init__(
        self,
        model: nn.Module,
        likelihood: str | Likelihood | None = None,
        *,
        lr: float = 0.03,
        damping: float = 1e-2,
        empirical: bool = False,
        max_memory: int = 2 * 2**30,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(
            model,
            BlockFisherCurvature("data" if empirical else "pseudo", max_memory),
            likelihood,
            lr,
            damping,
            **shared,
        )
