"""Mθ̂ = ĝ: the normal equation of a neuron's least squares (lnb eq. 10), by CG or exactly; M + γ on weights (3.4)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from curvlab.operators.incomplete_cholesky import IncompleteCholesky, incomplete_cholesky, precondition
from curvlab.operators.neuron_metric import NeuronMetric, pushed
from curvlab.shapes import Float
from curvlab.solvers.by_size import by_size
from curvlab.solvers.safe_inverse import safe_inverse
from curvlab.solvers.short_cg import short_conjugate_gradients

# Entries of a matrix that cost less than the operations on one more stack of matrices.
SMALL = 2**13


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
            matrix.diagonal(dim1=1, dim2=2)[:, : self.mean.shape[1]] += self.ridge
        return matrix

    def preconditioned(self, w: Float[Tensor, "g o j"]) -> Float[Tensor, "g o j"]:
        """wP."""
        return precondition(self.preconditioner, w)

    def half(self, w: Float[Tensor, "g o j"]) -> tuple[Float[Tensor, "g o"], Callable[[], Float[Tensor, "g o j"]]]:
        """The diagonal of w(M + γ…)wᵀ, and a function that returns w(M + γ…)."""
        if self.formed:
            product = w @ self.matrix
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

    def kind(self, position: int) -> Hashable:
        """Equations of one kind are solved as one with more groups; `position` keeps apart what cannot be."""
        if self.metric is None or not self.formed:
            return position
        g = self.gradient
        size = g.shape[2].bit_length() if g[0].numel() <= SMALL else g.shape[1:]
        return size, g.dtype, g.device, self.biased, self.ridge, self.last is None


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
            _, height, width = equations[i].gradient.shape
            solved[i] = part[:, :height, part.shape[2] - width :]
    return solved


def boosted_exactly(equations: Sequence[NormalEquation]) -> list[Tensor]:
    """θ̂ = ĝ(M + γ…)⁻¹ in float64 from matrices; P for an inverse that does not exist even there."""
    solved = [equation.preconditioned(equation.gradient) for equation in equations]
    matrices = {i: one.matrix.double() for i, one in enumerate(equations) if one.formed}
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
    if last is None:
        residual, start = gradient.clone(), None
    else:
        squares, back = equation.half(last)
        share = torch.linalg.vecdot(gradient, last) / squares
        share = share.nan_to_num_(0.0, 0.0, 0.0)[..., None]
        residual, start = torch.addcmul(gradient, share, back(), value=-1), share * last
    return short_conjugate_gradients(equation.half, residual, equation.preconditioned, start, iterations)


def _joined(equations: Sequence[NormalEquation]) -> NormalEquation:
    """Equations of one kind as one; smaller ones get features in front and outputs behind that are all zero."""
    first = equations[0]
    if len(equations) == 1:
        return first
    height, width = (max(one.gradient.shape[axis] for one in equations) for axis in (1, 2))

    def rows(tensors: Iterable[Tensor | None]) -> Tensor:
        wide = [t for t in tensors if t is not None]
        return torch.cat([_padded(t, (width - t.shape[2], 0, 0, height - t.shape[1])) for t in wide])

    def features(tensors: Iterable[Tensor]) -> Tensor:
        return torch.cat([_padded(t, (width - first.biased - t.shape[1], 0)) for t in tensors])

    metrics = [one.metric for one in equations if one.metric is not None]
    seconds = [m.second if m.rows == metrics[0].rows else m.matrix() * metrics[0].rows for m in metrics]
    squares = [_padded(s, (width - s.shape[2], 0, width - s.shape[2], 0)) for s in seconds if s is not None]
    return NormalEquation(
        rows(one.gradient for one in equations),
        features(one.mean for one in equations),
        features(one.square for one in equations),
        first.ridge,
        replace(metrics[0], second=torch.cat(squares)),
        None if first.last is None else rows(one.last for one in equations),
    )


def _padded(tensor: Tensor, sides: tuple[int, ...]) -> Tensor:
    return pad(tensor, sides) if any(sides) else tensor
