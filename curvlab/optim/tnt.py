"""TNT: D ×₁ (Ũ₁ + εI)⁻¹ … ×_k (Ũ_k + εI)⁻¹ per parameter tensor (ren Alg. 13–15, eq. 4.10)."""

from __future__ import annotations

from typing import Unpack

from torch import nn

from curvlab.curvatures.tensor_normal import TensorNormalCurvature
from curvlab.likelihoods import Likelihood
from curvlab.optim.preconditioned import Preconditioned
from curvlab.optim.shared import Shared
from curvlab.statistics.tensor_normal import TensorStatistic


class TNT(Preconditioned):
    """p = m ×₁ (Ũ₁ + εI)⁻¹ … ×_k (Ũ_k + εI)⁻¹; biases and norm parameters are 1-way tensors.

    Args:
        model: the network.
        likelihood: of its output ("categorical", "bernoulli", "gaussian"); not needed for the empirical Fisher.
        lr: α.
        damping: ε, added to every factor.
        statistic: "batch" contracts the mean pseudo-gradient of each batch (Alg. 15), "per-example" every example's
            own.
        fisher_type: targets of the output gradients: "mc" draws them from the model, "empirical" takes the data's (no
            second backward pass), "type-2" the exact expectation by one pass per column of the loss Hessian's root.
        mc_samples: drawn targets per example.
        largest_mode: a tensor with a longer mode (an embedding's words) has no factors and follows the heavy ball.
        shared: momentum, weight_decay, decay, averaging, statistics_interval, inverse_interval, seed, groups.
    """

    name = "tnt"

    def __init__(
        self,
        model: nn.Module,
        likelihood: str | Likelihood | None = None,
        *,
        lr: float = 1e-4,
        damping: float = 0.1,
        statistic: TensorStatistic = "batch",
        fisher_type: str = "mc",
        mc_samples: int = 1,
        largest_mode: int = 8192,
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
