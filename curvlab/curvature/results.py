"""What the functions of `curvlab.curvature` return: frozen results, large matrices written out when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from curvlab.curvatures.metric import stack
from curvlab.operators.operator import Grouped, GroupedKronecker, Kronecker, Operator


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean `(d,)`, second moment `(d, d)` over all rows, without an appended 1, and their count N·T; grouped layers
    lead with g.

    `stored` is the second moment as it was summed: of one-hot features (Embedding) its diagonal `(d,)`.
    """

    mean: Tensor
    stored: Tensor
    count: int

    @property
    def second_moment(self) -> Tensor:
        """M = 1/(NT) Σ aaᵀ; that of a large vocabulary takes (vocabulary)² numbers, `stored` does not."""
        return self.stored if self.stored.ndim > self.mean.ndim else torch.diag_embed(self.stored)


@dataclass(frozen=True)
class KroneckerFactors:
    """A `(i, i)` with a 1 appended to the inputs of a biased layer, and G `(o, o)`; grouped layers lead with g.

    Attributes:
        input_operator: A in the form it was averaged in: of fewer rows than features, the rows.
        gradient_operator: G likewise.
    """

    input_operator: Operator
    gradient_operator: Operator

    @cached_property
    def input_factor(self) -> Tensor:
        """A, float64, written out when it is first asked for."""
        return single(stack(self.input_operator))

    @cached_property
    def gradient_factor(self) -> Tensor:
        """G, float64, written out when it is first asked for."""
        return single(stack(self.gradient_operator))

    @property
    def operator(self) -> Operator:
        """G ⊗ A, group by group, as `curvlab.operators` takes it."""
        g, a = self.gradient_operator, self.input_operator
        if isinstance(g, Grouped) and isinstance(a, Grouped):
            return GroupedKronecker((g, a))
        return Kronecker((g, a))


@dataclass(frozen=True)
class TensorFactors:
    """Ũ_1, …, Ũ_k of Ren 2022, eq. 4.10, one per mode of the parameter.

    Attributes:
        operators: each in the form it was averaged in: of fewer rows than columns the rows, of a table of embeddings on
            the rows of the tokens that were seen.
    """

    operators: tuple[Operator, ...]

    @cached_property
    def factors(self) -> tuple[Tensor, ...]:
        """Ũ_1, …, Ũ_k, float64, written out when they are first asked for."""
        return tuple(single(stack(one)) for one in self.operators)

    @property
    def operator(self) -> Operator:
        """Ũ_1 ⊗ … ⊗ Ũ_k, as `curvlab.operators` takes it."""
        return Kronecker(self.operators)


def single(x: Tensor) -> Tensor:
    """Without the axis of groups where there is one group."""
    return x[0] if x.shape[0] == 1 else x
