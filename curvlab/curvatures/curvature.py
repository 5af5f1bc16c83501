"""Curvature: a recipe that turns what one batch shows of a unit into a preconditioner.

measure: sample → sums, which add up over micro-batches      average: sums → the batch's statistics, which enter an EMA
operators: averages + damping → inverted Operators           unit: what one operator acts on, a layer's W̄ or one tensor
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from curvlab.capture.sample import Sample
from curvlab.capture.survey import LayerBlock, Survey
from curvlab.operators.operator import Operator

Source = Literal["pseudo", "data", "gradient"]
"""Where statistics come from: pseudo-targets (a second backward), the data's own targets, or the batch gradient
alone."""

State = dict[str, Tensor]
"""The averages of one unit, by statistic; saved with the optimizer."""


@dataclass(frozen=True)
class Batch:
    """Sizes of what a step has seen: N examples in all its micro-batches, and N·T rows of one unit."""

    examples: int
    rows: int


@dataclass(frozen=True)
class PreconditionerBlock:
    """What one operator acts on: the matrix W̄ `[g, o, i (+1)]` of a block, or one parameter tensor with its modes.

    Attributes:
        name: of the block, or of the parameter.
        block: whose samples it is measured on; None for a parameter that only gradients are known of.
        role: None for the whole matrix, else the parameter's role in the block.
        parameters: role -> parameter name.
        shape: of the tensor the operator acts on.
    """

    name: str
    block: LayerBlock | None
    role: str | None
    parameters: Mapping[str, str]
    shape: tuple[int, ...]

    def assemble(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The unit's tensor from tensors by parameter name."""
        if self.role is None and self.block is not None:
            return self.block.layer.matrix({role: tensors[name] for role, name in self.parameters.items()})
        (name,) = self.parameters.values()
        return tensors[name].reshape(self.shape)

    def take_apart(self, tensor: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `assemble`; `like` gives the parameters' shapes."""
        if self.role is None and self.block is not None:
            return {self.parameters[role]: part for role, part in self.block.layer.split(tensor).items()}
        (name,) = self.parameters.values()
        return {name: tensor.reshape(like[name].shape)}


class Curvature(ABC):
    """A recipe: which units, which statistics, which operator."""

    source: Source = "pseudo"

    def recipe(self) -> dict[str, str | float]:
        """What averages depend on: those of another recipe cannot be gone on with."""
        return {name: value for name, value in vars(self).items() if isinstance(value, str | float)}

    @abstractmethod
    def units(self, found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
        """The units of a model, and by omission the parameters that follow the plain gradient.

        `found` is None for source "gradient", which never looks at the model.
        """

    @abstractmethod
    def measure(self, unit: PreconditionerBlock, sample: Sample, state: State) -> State:
        """Sums over the examples of one (micro-)batch; sources "pseudo" and "data"."""

    @abstractmethod
    def average(self, unit: PreconditionerBlock, sums: State, batch: Batch) -> State:
        """The statistics of the whole batch from its sums, in the scale of docs/curvature.md.

        For source "gradient" the only sum is "gradient", the unit's batch-mean gradient. The other sums are nobody
        else's afterwards, and may be altered.
        """

    @abstractmethod
    def operators(
        self, units: Sequence[PreconditionerBlock], states: Sequence[State], settings: Sequence[Mapping[str, Any]]
    ) -> list[Operator | None]:
        """The inverted, damped operators of all units at once, so that equal sizes share a batched call.

        Args:
            units: whose.
            states: their averages; a recipe may add tensors of its own (EKFAC's basis).
            settings: their groups' hyper-parameters ("damping", ...).

        Returns:
            One operator to apply with `product` per unit; None where it could not be made.
        """

    def merge(self, state: State, fresh: State, weight: float) -> State:
        """x ← βx + (1 − β)x_new for every statistic, β = `weight`, in place; what is new enters as it is."""
        for key, value in fresh.items():
            if key in state:
                state[key].lerp_(value.to(state[key].dtype), 1 - weight)
            else:
                state[key] = value
        return state

    def renew(self, state: State, settings: Mapping[str, Any]) -> Operator | None:
        """A cheap new operator from averages that have moved since the last refresh; None where there is no such
        thing."""
        return None


def layer_units(found: Survey | None) -> list[PreconditionerBlock]:
    """One unit per block that is a dense map (more than one output and input): W̄ = [W b]. Norm scales are not."""
    made = []
    for block in found.blocks.values() if found is not None else ():
        layer = block.layer
        if layer.out_features > 1 or layer.in_features > 1:
            shape = (layer.groups, layer.out_features, layer.in_features + layer.biased)
            made.append(PreconditionerBlock(block.name, block, None, dict(block.parameters), shape))
    return made
