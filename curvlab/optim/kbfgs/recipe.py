"""K-BFGS: which layers have inverses H_G ⊗ H_A, and what a batch shows of them: ā̄, h̄, ḡ and A (Ren 2022, sections
2.5, 3.2, 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from curvlab.capture.sample import Call, Sample
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.layers.embedding import EmbeddingLayer
from curvlab.linalg.bfgs import times
from curvlab.linalg.gram import mirrored
from curvlab.optim.kbfgs.feature_total import feature_total
from curvlab.optim.kbfgs.moment_product import moment_product
from curvlab.optim.kbfgs.pair_damping import PairDamping
from curvlab.optim.lnb.neurons import neurons
from curvlab.shapes import Float
from curvlab.statistics.append_one import append_one

Moment = Literal["averaged", "minibatch"]
"""Which A the Hessian action is of: an average over steps that is formed, or the batch's, which is not (Ren 2022,
section 3.3.2)."""


ROUNDING = 8
"""Units of eps·Σ|g| that a sum Σ g may err by: up to 3 were measured in front of batch norms."""


@dataclass(frozen=True)
class Recipe:
    """What tells the methods of both chapters apart.

    Attributes:
        pair_damping: of the pairs (s_G, y_G); "double" goes with inverses that start at I, the others at I/λ_G.
        moment: the A of the Hessian action.
        exact: H_A = (A + λ_A I)⁻¹ in place of the Hessian action (Alg. 5, line 23; Alg. 10, line 12).
        pairs: p of L-BFGS for H_G; None is BFGS.
        rebalanced: λ_A = √T√λ and λ_G = √λ/√T, else both √λ (Ren 2022, section 3.4.3).
        skip: leave out pairs with yᵀHy > sᵀy/μ₁ (Alg. 5, line 17).
        mu: μ₁.
        decay: β of the averages of s_G, y_G and A.
    """

    pair_damping: PairDamping
    moment: Moment
    exact: bool
    pairs: int | None
    rebalanced: bool
    skip: bool
    mu: float
    decay: float

    @property
    def forms_moment(self) -> bool:
        """Whether A itself is needed at every update."""
        return self.exact or self.moment == "averaged"

    def dampings(self, damping: float, positions: float) -> tuple[float, float]:
        """(λ_A, λ_G) of a layer with T `positions`; their product is λ."""
        balance = positions if self.rebalanced else 1.0
        return (damping * balance) ** 0.5, (damping / balance) ** 0.5


def quasi_newton_blocks(found: Survey | None, trainable: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
    """Dense maps whose parameters are all trainable and in no other block.

    Not embeddings: A of a vocabulary is diagonal, its BFGS inverse would not be.
    """
    return [one for one in neurons(found, trainable) if not isinstance(one.uses[0].block.layer, EmbeddingLayer)]


@dataclass(frozen=True, eq=False)
class Shown:
    """Sums over the rows of one batch or several, of one layer.

    Attributes:
        features: Σ ā.
        output_gradients: Σ ∂ℓ_n/∂h and Σ |∂ℓ_n/∂h|; None where none are wanted.
        rows: N·T.
        examples: N.
        inputs: the recorded calls, where A will be multiplied with a vector.
        second: Σ āāᵀ, where A is formed.
    """

    features: Float[Tensor, "g j"]
    output_gradients: Float[Tensor, "2 g o"] | None
    rows: int
    examples: int
    inputs: tuple[Call, ...] = ()
    second: Float[Tensor, "g j j"] | None = None

    def joined(self, other: Shown) -> Shown:
        """Both together."""
        output_gradients = (
            None
            if self.output_gradients is None or other.output_gradients is None
            else self.output_gradients + other.output_gradients
        )
        second = None if self.second is None or other.second is None else self.second + other.second
        return replace(
            self,
            features=self.features + other.features,
            output_gradients=output_gradients,
            rows=self.rows + other.rows,
            examples=self.examples + other.examples,
            inputs=self.inputs + other.inputs,
            second=second,
        )

    @property
    def positions(self) -> float:
        """T."""
        return self.rows / self.examples

    @property
    def feature(self) -> Float[Tensor, "g j"]:
        """ā̄ = E_n[1/T Σ_t ā]."""
        return self.features / self.rows

    @property
    def output_gradient(self) -> Float[Tensor, "2 g o"]:
        """ḡ = E_n[1/T Σ_t ∂ℓ_n/∂h] (Ren 2022, eq. 3.13), and the same mean of absolute values."""
        assert self.output_gradients is not None
        return self.output_gradients / self.rows

    def output(self, w: Float[Tensor, "g o j"]) -> Float[Tensor, "g o"]:
        """h̄ = E_n[1/T Σ_t h] (Ren 2022, eq. 3.12), as W̄ā̄, since h = W̄ā: outputs need not be recorded."""
        return times(w, self.feature)

    def moment(self) -> Float[Tensor, "g j j"]:
        """A = E_n[Σ_t āāᵀ]."""
        assert self.second is not None
        return self.second / self.examples

    def action(self, s: Float[Tensor, "g j"]) -> Float[Tensor, "g j"]:
        """A s, A not formed (Ren 2022, eq. 3.15)."""
        total = torch.zeros_like(s)
        for call in self.inputs:
            call.check()
            assert call.x is not None
            total = total + moment_product(call.layer, call.x, s)
        return total / self.examples


def shown(sample: Sample, inputs: bool = False, second: bool = False, output_gradients: bool = True) -> Shown:
    """The sums of a sample.

    Args:
        sample: of one batch.
        inputs: whether to keep the recorded inputs.
        second: whether to form Σ āāᵀ.
        output_gradients: whether the sample has any.
    """
    rows = sample.rows
    kept = tuple(call for call in sample.unpadded_calls() if call.x is not None)
    totals = [feature_total(call.layer, call.x.to(sample.dtype)) for call in kept if call.x is not None]
    features = totals[0] if len(totals) == 1 else torch.stack(totals).sum(0)
    if sample.layer.biased:
        features = pad(features, (0, 1), value=float(rows))
    g = sample.output_gradients if output_gradients else None
    return Shown(
        features,
        None if g is None else torch.stack([g.sum((1, 2)), g.abs().sum((1, 2))]),
        rows,
        sample.examples,
        kept if inputs else (),
        _second(sample) if second else None,
    )


def difference(before: Float[Tensor, "2 g o"], after: Float[Tensor, "2 g o"]) -> Float[Tensor, "g o"]:
    """ḡ⁺ − ḡ of two `output_gradient`s, with zeros for what is nothing but rounding.

    In front of a batch norm ḡ = 0, as a shift of h changes nothing there: BFGS must not take the rounding for
    curvature.
    """
    y = after[0] - before[0]
    rounding = ROUNDING * torch.finfo(y.dtype).eps * (before[1] + after[1])
    return torch.where(y.abs() <= rounding, 0.0, y)  # what is no number stays none


def _second(sample: Sample) -> Float[Tensor, "g j j"]:
    moments = sample.feature_moments()
    second = mirrored(moments.second.contiguous())
    if sample.layer.biased:
        second = append_one(second, moments.total)
        second[:, -1, -1] = moments.rows
    return second
