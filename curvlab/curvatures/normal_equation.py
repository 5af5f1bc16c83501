"""Mθ̂ = ĝ: the normal equation of a neuron's least squares (lnb eq. 10), by CG or exactly; M + γ on weights (3.4)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from curvlab.operators.incomplete_cholesky import IncompleteCholesky, incomplete_cholesky, precondition
from curvlab.operators.neuron_metric import NeuronMetric
from curvlab.operators.product import product
from curvlab.shapes import Float
from curvlab.solvers.by_size import by_size
from curvlab.solvers.cg import conjugate_gradients
from curvlab.solvers.safe_inverse import safe_inverse


@dataclass(frozen=True, eq=False)
class NormalEquation:
    """θ̂(M + γ diag(1, …, 1, 0)) = ĝ for W̄ `[g, o, j]`: every output's row is a system of its own.

    Attributes:
        gradient: ĝ.
        mean: μ `[g, i]` of the features, averaged.
        square: χ = E[a⊙a] `[g, i]`, averaged.
        ridge: γ.
        metric: M, or its matrix with the ridge `[g, j, j]`; None where the averages are all that is known of it.
        last: θ̂ of the step before, None if there is none.
    """

    gradient: Float[Tensor, "g o j"]
    mean: Float[Tensor, "g i"]
    square: Float[Tensor, "g i"]
    ridge: float
    metric: NeuronMetric | Float[Tensor, "g j j"] | None
    last: Float[Tensor, "g o j"] | None = None

    @cached_property
    def preconditioner(self) -> IncompleteCholesky:
        """P ≈ (M + γ…)⁻¹."""
        biased = self.gradient.shape[2] > self.mean.shape[1]
        return incomplete_cholesky(self.mean, self.square, biased, self.ridge)

    def preconditioned(self, w: Float[Tensor, "g o j"]) -> Float[Tensor, "g o j"]:
        """wP."""
        return precondition(self.preconditioner, w)

    def product(self, w: Float[Tensor, "g o j"]) -> Float[Tensor, "g o j"]:
        """w(M + γ…)."""
        if isinstance(self.metric, Tensor):
            return w @ self.metric
        assert self.metric is not None
        y, width = product(self.metric, w), self.mean.shape[1]
        y[..., :width].add_(w[..., :width], alpha=self.ridge)
        return y

    def kind(self, position: int) -> Hashable:
        """Equations of one kind are solved as one with more groups; `position` keeps apart what cannot be."""
        if not isinstance(self.metric, Tensor):
            return position
        g = self.gradient
        return g.shape[1:], g.dtype, g.device, self.mean.shape[1], self.ridge, self.last is None


def ridged(metric: NeuronMetric, ridge: float) -> Float[Tensor, "g j j"]:
    """M + γ diag(1, …, 1, 0), of a metric that has been written out."""
    matrix = metric.matrix()
    matrix.diagonal(dim1=1, dim2=2)[:, : metric.layer.width] += ridge
    return matrix


def boosted(equations: Sequence[NormalEquation], iterations: int) -> list[Tensor]:
    """θ̂ of every equation by a few steps of preconditioned CG; small matrices of one shape go together."""
    alike: dict[Hashable, list[int]] = {}
    for i, equation in enumerate(equations):
        alike.setdefault(equation.kind(i), []).append(i)
    solved = [equation.gradient for equation in equations]
    for members in alike.values():
        solution = _boosted(_joined([equations[i] for i in members]), iterations)
        groups = [len(equations[i].gradient) for i in members]
        for i, part in zip(members, torch.split(solution, groups), strict=True):
            solved[i] = part
    return solved


def boosted_exactly(equations: Sequence[NormalEquation]) -> list[Tensor]:
    """θ̂ = ĝ(M + γ…)⁻¹ in float64 from matrices; P for an inverse that does not exist even there."""
    solved = [equation.preconditioned(equation.gradient) for equation in equations]
    matrices = {i: one.metric.double() for i, one in enumerate(equations) if isinstance(one.metric, Tensor)}
    for i, (inverse, ok) in zip(matrices, by_size(list(matrices.values()), safe_inverse), strict=True):
        gradient = equations[i].gradient
        exact = (gradient.double() @ inverse).to(gradient.dtype)
        solved[i] = torch.where(ok[:, None, None], exact, solved[i])
    return solved


def _boosted(equation: NormalEquation, iterations: int) -> Float[Tensor, "g o j"]:
    """CG from cθ̂_last, c = ĝᵀθ̂_last/θ̂_lastᵀMθ̂_last for each row.

    c is the best multiple, and costs the one product that any start needs. So ½θ̂ᵀMθ̂ − ĝᵀθ̂ is never above its 0 at
    θ̂ = 0, and ĝᵀθ̂ ≥ 0: whatever was solved last, the result is a direction of descent. Rows of numbers that are not
    finite come out as zero.
    """
    gradient, last = equation.gradient, equation.last
    if equation.metric is None:
        return equation.preconditioned(gradient)
    solve = partial(
        conjugate_gradients, equation.product, preconditioner=equation.preconditioned, max_iterations=iterations
    )
    if last is None:
        return solve(gradient).solution
    pushed = equation.product(last)
    share = torch.linalg.vecdot(gradient, last) / torch.linalg.vecdot(last, pushed)
    share = share.where(share.isfinite(), 0.0)[..., None]
    return torch.addcmul(solve(torch.addcmul(gradient, share, pushed, value=-1)).solution, share, last)


def _joined(equations: Sequence[NormalEquation]) -> NormalEquation:
    """Equations of one kind as one."""
    first = equations[0]
    if len(equations) == 1:
        return first

    def cat(tensors: Iterable[Tensor | NeuronMetric | None]) -> Tensor:
        return torch.cat([t for t in tensors if isinstance(t, Tensor)])

    return NormalEquation(
        cat(one.gradient for one in equations),
        cat(one.mean for one in equations),
        cat(one.square for one in equations),
        first.ridge,
        cat(one.metric for one in equations),
        None if first.last is None else cat(one.last for one in equations),
    )
