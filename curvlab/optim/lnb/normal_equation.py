"""Mθ̂ = ĝ: the normal equation of a neuron's least squares (LNB, eq. 10), by CG or exactly; M + γ on weights (3.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from curvlab.linalg.by_size import by_size
from curvlab.linalg.inverse import safe_inverse
from curvlab.linalg.short_conjugate_gradients import short_conjugate_gradients
from curvlab.operators.incomplete_cholesky import IncompleteCholesky, incomplete_cholesky, precondition
from curvlab.optim.lnb.neuron_metric import NeuronMetric, pushed
from curvlab.shapes import Float


@dataclass(frozen=True, eq=False)
class NormalEquation:
    """θ̂(M + γ diag(1, …, 1, 0)) = ĝ for W̄ `[g, o, j]`: every output's row is a system of its own.

    Attributes:
        gradient: ĝ.
        mean: μ `[g, i]` of the features, averaged.
        square: χ = E[a⊙a] `[g, i]`, averaged.
        ridge: γ.
        metric: M; None where the averages are all that is known of it.
        last: θ̂ of the step before, None if there is none.
    """

    gradient: Float[Tensor, "g o j"]
    mean: Float[Tensor, "g i"]
    square: Float[Tensor, "g i"]
    ridge: float
    metric: NeuronMetric | None
    last: Float[Tensor, "g o j"] | None = None

    @cached_property
    def preconditioner(self) -> IncompleteCholesky:
        """P ≈ (M + γ…)⁻¹."""
        return incomplete_cholesky(self.mean, self.square, self.biased, self.ridge)

    @property
    def biased(self) -> bool:
        """Whether W̄ has a bias column."""
        return self.gradient.shape[2] > self.mean.shape[1]

    @property
    def formed(self) -> bool:
        """Whether M has been written out."""
        return self.metric is not None and not self.metric.inputs

    @cached_property
    def matrix(self) -> Float[Tensor, "g j j"]:
        """M + γ diag(1, …, 1, 0), of a metric that has been written out."""
        assert self.metric is not None
        matrix = self.metric.matrix()
        if self.ridge:
            matrix.diagonal(dim1=1, dim2=2)[:, : self.mean.shape[1]].add_(self.ridge)
        return matrix

    def preconditioned(self, w: Float[Tensor, "g o j"]) -> Float[Tensor, "g o j"]:
        """wP."""
        return precondition(self.preconditioner, w)

    def half(self, w: Float[Tensor, "g o j"]) -> tuple[Float[Tensor, "g o"], Callable[[], Float[Tensor, "g o j"]]]:
        """The diagonal of w(M + γ…)wᵀ, and a function that returns w(M + γ…)."""
        if self.formed:
            product = torch.bmm(w, self.matrix)
            return torch.linalg.vecdot(w, product), lambda: product
        assert self.metric is not None
        through, width, ridge = pushed(self.metric, w), self.mean.shape[1], self.ridge
        if not ridge:
            return through.squares, through.back
        weights = w[..., :width]

        def back() -> Tensor:
            y = through.back()
            y[..., :width].add_(weights, alpha=ridge)
            return y

        return through.squares.add(weights.square().sum(-1), alpha=ridge), back


def boosted_exactly(equations: Sequence[NormalEquation]) -> list[Tensor]:
    """θ̂ = ĝ(M + γ…)⁻¹ in float64 from matrices; P for an inverse that does not exist even there."""
    solved = [equation.preconditioned(equation.gradient) for equation in equations]
    matrices = {i: one.matrix.double() for i, one in enumerate(equations) if one.formed}
    for i, (inverse, ok) in zip(matrices, by_size(list(matrices.values()), safe_inverse), strict=True):
        gradient = equations[i].gradient
        exact = (gradient.double() @ inverse).to(gradient.dtype)
        solved[i] = torch.where(ok[:, None, None], exact, solved[i])
    return solved


def boosted(equation: NormalEquation, iterations: int) -> Float[Tensor, "g o j"]:
    """θ̂ by a few steps of preconditioned CG, from cθ̂_last with c = ĝᵀθ̂_last/θ̂_lastᵀMθ̂_last for each row.

    c is the best multiple, and costs the one product that any start needs. So ½θ̂ᵀMθ̂ − ĝᵀθ̂ is never above its 0 at
    θ̂ = 0, and ĝᵀθ̂ ≥ 0: whatever was solved last, the result is a direction of descent. Rows of numbers that are not
    finite come out as zero.
    """
    gradient, last = equation.gradient, equation.last
    if equation.metric is None:
        return equation.preconditioned(gradient)
    if last is None:
        residual, start = gradient.clone(), None
    else:
        squares, back = equation.half(last)
        share = torch.linalg.vecdot(gradient, last) / squares
        share = share.nan_to_num_(0.0, 0.0, 0.0)[..., None]
        residual, start = torch.addcmul(gradient, share, back(), value=-1), share * last
    return short_conjugate_gradients(equation.half, residual, equation.preconditioned, start, iterations)
