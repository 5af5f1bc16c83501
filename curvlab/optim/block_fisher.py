"""Block Fisher: (F_l + λI)⁻¹ per layer with the exact block (Ren 2022, section 4.3.4): the reference that directions
are compared with."""

from __future__ import annotations

from typing import Annotated, Unpack

from torch import nn

from curvlab.curvatures.block_fisher import BlockFisherCurvature, batches_kept
from curvlab.field_types import FROM_ONE
from curvlab.fields import Setting
from curvlab.likelihoods import Likelihood
from curvlab.optim.declared import Damping, Rate
from curvlab.optim.preconditioned import Preconditioned
from curvlab.optim.registry import register
from curvlab.optim.shared import FisherType, McSamples, Shared


@register("block-fisher", source="Ren 2022, section 4.3.4")
class BlockFisher(Preconditioned):
    """p = (F + λI)⁻¹ vec(m), F the EMA of 1/N Σ vec(DW_n) vec(DW_n)ᵀ.

    Args:
        model: the network. A block of d parameters takes d² numbers, or d for every example in its average.
        likelihood: of its output ("categorical", "bernoulli", "gaussian"); not needed for the empirical Fisher.
        shared: see `Shared`.
    """

    eager = False  # an inverse of a whole block costs as much as hundreds of steps

    def __init__(
        self,
        model: nn.Module,
        likelihood: str | Likelihood | None = None,
        *,
        lr: Rate = 0.03,
        damping: Damping = 1e-2,
        fisher_type: FisherType = "mc",
        mc_samples: McSamples = 1,
        max_memory: Annotated[
            int,
            Setting(
                "Bytes for all blocks. While they fit they are dense; then those that are smaller so are kept as the "
                "gradients of the examples in the average, with the same directions; then it is an error that names "
                "both sizes.",
                FROM_ONE,
            ),
        ] = 2 * 2**30,
        **shared: Unpack[Shared],
    ) -> None:
        curvature = BlockFisherCurvature(fisher_type, mc_samples, max_memory)
        super().__init__(model, curvature, likelihood, lr, damping, **shared)
        between = -(-self.schedule["inverse_interval"] // self.schedule["statistics_interval"])
        curvature.batches = batches_kept(self.schedule["decay"], between)
