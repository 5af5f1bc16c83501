"""LayerFactors and Factors: what a factor file says of one layer, and of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from curvlab.curvature.results import KroneckerFactors, single
from curvlab.curvatures.curvature import State
from curvlab.curvatures.gradient_moments import GradientMoments
from curvlab.curvatures.input_moments import InputMoments
from curvlab.curvatures.kept_rows import of_groups, operator_of
from curvlab.curvatures.metric import metric, stack
from curvlab.curvatures.reduced_factors import ReducedFactors
from curvlab.errors import CheckpointError
from curvlab.factor_files.layer_shape import LayerShape
from curvlab.factor_files.statistics import COLUMNS, FISHER_DIAGONAL, MEAN, REQUIRED, holds, state
from curvlab.formats.lazy_tensors import LazyTensors
from curvlab.operators.operator import Diagonal, Operator
from curvlab.operators.scaled import scaled
from curvlab.quoting import quoted


@dataclass(frozen=True)
class Origin:
    """What factors are of.

    Attributes:
        examples: N.
        fisher_type: whose gradients they are: "type-2", "mc", "empirical" or "forward-only".
        mc_samples: targets drawn per example for "mc".
        kfac_approx: "expand" or "reduce".
        likelihood: "categorical", "bernoulli" or "gaussian".
        seed: of what was drawn.
        sha256: of the model's file; None for a network in memory.
        data: the "data" entry of the analysis.
        version: of curvlab.
    """

    examples: int
    fisher_type: str
    mc_samples: int
    kfac_approx: str
    likelihood: str | None
    seed: int
    sha256: str | None
    data: Mapping[str, Any]
    version: str


@dataclass(frozen=True, eq=False)
class LayerFactors:
    """Statistics of one layer in the scale of docs/curvature.md, float64, read from the file when they are asked for.

    An operator is a matrix in the form it was stored in (of fewer rows than columns, the rows); the property beside it
    writes the matrix out.

    Attributes:
        shape: which layer.
        origin: of all factors of the file.
        count: N·T, rows of features, without padding.
        tensors: as they are stored, by their names in the file.
    """

    shape: LayerShape
    origin: Origin
    count: int
    tensors: Mapping[str, Tensor] = field(repr=False)

    @property
    def parameters(self) -> Mapping[str, str]:
        """Role ("weight", "bias") -> the parameter's name in the model."""
        return self.shape.parameters

    @property
    def mean(self) -> Tensor:
        """μ = 1/(NT) Σ a `(i,)`, without the bias's 1."""
        return single(self.stored(MEAN))

    @property
    def second_moment_operator(self) -> Operator:
        """M = 1/(NT) Σ aaᵀ as it was stored."""
        return operator_of(self._state(InputMoments.name), "second")

    @property
    def second_moment(self) -> Tensor:
        """M `(i, i)`, without the bias's 1."""
        return single(stack(self.second_moment_operator))

    @property
    def input_operator(self) -> Operator:
        """A = 1/N Σ_n Σ_t āāᵀ, from M and μ ("expand"), or of mean features, as it was stored ("reduce")."""
        if self.origin.kfac_approx == "reduce":
            return operator_of(self._state(ReducedFactors.name), "input")
        second, positions = self.second_moment_operator, self.count / self.origin.examples
        return scaled(metric(second, self.stored(MEAN), self.shape.biased), positions)

    @property
    def input_factor(self) -> Tensor:
        """A `(i, i)`, i counting the 1 of a biased layer."""
        return single(stack(self.input_operator))

    @property
    def gradient_operator(self) -> Operator | None:
        """G = 1/(NT) Σ ggᵀ as it was stored; the identity for "forward-only", None where no gradient came."""
        if holds(GradientMoments.name, self.tensors):
            return operator_of(self._state(GradientMoments.name), "gradient")
        if self.origin.fisher_type != "forward-only":
            return None
        ones = torch.ones(self.shape.groups, self.shape.out_features, dtype=torch.float64)
        return Diagonal(ones[0]) if self.shape.groups == 1 else of_groups(torch.diag_embed(ones))

    @property
    def gradient_factor(self) -> Tensor | None:
        """G `(o, o)`."""
        operator = self.gradient_operator
        return None if operator is None else single(stack(operator))

    @property
    def operator(self) -> Operator | None:
        """G ⊗ A, as it acts on W̄ = [W b]."""
        g = self.gradient_operator
        return None if g is None else KroneckerFactors(self.input_operator, g).operator

    @property
    def fisher_diagonal(self) -> Mapping[str, Tensor]:
        """Parameter -> E[D²], D the gradient of one example, in the parameter's shape."""
        roles = {role: f"{FISHER_DIAGONAL}.{role}" for role in self.parameters}
        return {self.parameters[role]: self.tensors[key] for role, key in roles.items() if key in self.tensors}

    def eigenbasis(self, factor: str) -> tuple[Tensor, Tensor]:
        """Eigenvalues `(k,)`, ascending, and eigenvectors `(d, k)` of A ("input") or G ("gradient"), where they are
        stored; k < d where the others are zero."""
        return single(self.stored(f"{factor}_values")), single(self.stored(f"{factor}_vectors"))

    def stored(self, statistic: str) -> Tensor:
        """A tensor as it is stored, with its axis of groups.

        Raises:
            CheckpointError: the file does not hold it.
        """
        if statistic not in self.tensors:
            raise self._without(statistic)
        return self.tensors[statistic]

    def _state(self, recipe: str) -> State:
        if not holds(recipe, self.tensors):
            raise self._without(REQUIRED[recipe][-1])
        for name, width in self.shape.widths.items():
            places = self.tensors.get(name + COLUMNS, None)
            if places is not None and not (int(places.min()) >= 0 and int(places.max()) < width):
                what = f"the {name} of the layer {quoted(self.shape.name)} has entries at columns that it has not"
                raise CheckpointError(what, f"it has {width}")
        return state(recipe, self.tensors, self.count, self.shape.widths)

    def _without(self, statistic: str) -> CheckpointError:
        return CheckpointError(f"the factor file has no {statistic} of the layer {quoted(self.shape.name)}")


class Factors(Mapping[str, LayerFactors]):
    """Layer -> `LayerFactors`, in the model's order.

    Args:
        layers: by name.
        origin: what all of them are of.
    """

    def __init__(self, layers: Mapping[str, LayerFactors], origin: Origin) -> None:
        self.layers, self.origin = dict(layers), origin

    def __getitem__(self, name: str) -> LayerFactors:
        return self.layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def fisher_diagonal(self) -> Mapping[str, Tensor]:
        """Parameter -> E[D²] of all layers, each read when it is asked for; parameters of no layer are not there."""
        readers = {}
        for layer in self.layers.values():
            for role, name in layer.parameters.items():
                key = f"{FISHER_DIAGONAL}.{role}"
                if key in layer.tensors:
                    readers[name] = lambda layer=layer, key=key: layer.tensors[key]
        return LazyTensors(readers)
