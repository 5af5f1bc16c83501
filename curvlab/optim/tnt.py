"""TNT: D ×₁ (Ũ₁ + εI)⁻¹ … ×_k (Ũ_k + εI)⁻¹ per parameter tensor (Ren 2022, Alg. 13–15, eq. 4.10)."""

from __future__ import annotations

from typing import Annotated, Unpack

from torch import nn

from curvlab.curvatures.tensor_normal import TensorNormalCurvature
from curvlab.fields import Setting
from curvlab.likelihoods import Likelihood
from curvlab.optim.declared import Epsilon, Rate
from curvlab.optim.preconditioned import Preconditioned
from curvlab.optim.registry import register
from curvlab.optim.shared import FisherType, LargestMode, McSamples, Shared
from curvlab.statistics.tensor_normal import TensorStatistic


@register("tnt", source="Ren 2022, Alg. 13–15, eq. 4.10")
class TNT(Preconditioned):
    """p = m ×₁ (Ũ₁ + εI)⁻¹ … ×_k (Ũ_k + εI)⁻¹; biases and norm parameters are 1-way tensors.

    Args:
        model: the network.
        likelihood: of its output ("categorical", "bernoulli", "gaussian"); not needed for the empirical Fisher.
        shared: see `Shared`.
    """

    def __init__(
        self,
        model: nn.Module,
        likelihood: str | Likelihood | None = None,
        *,
        lr: Rate = 1e-4,
        damping: Epsilon = 0.1,
        statistic: Annotated[
            TensorStatistic,
            Setting(
                "batch contracts the mean pseudo-gradient of each batch (Alg. 15), per-example every example's own."
            ),
        ] = "batch",
        fisher_type: FisherType = "mc",
        mc_samples: McSamples = 1,
        largest_mode: LargestMode = 8192,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(
            model,
            TensorNormalCurvature(statistic, fisher_type, mc_samples, largest_mode),
            likelihood,
            lr,
            damping,
            **shared,
        )
