"""Curvature: a recipe that turns the features and output gradients of a block into a preconditioner.

inputs, output_gradients: samples → sums, which add up over passes and micro-batches
average: sums → the batch's statistics, which enter an average     operators: averages + damping → inverted operators
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvlab.capture.batch_record import Samples
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.room import Kept, Room
from curvlab.operators.damped_inverse import damped_inverses
from curvlab.operators.operator import Operator

State = dict[str, Tensor]
"""Sums or averages of one block, by statistic; averages are saved with the optimizer."""


@dataclass(frozen=True)
class Count:
    """Sizes of a step: N examples in all its micro-batches, the rows (N·T, without padding) of every layer by name, and
    the type that statistics are to have; None for the type of their sums."""

    examples: int
    rows: Mapping[str, int] = field(default_factory=dict)
    dtype: torch.dtype | None = None


class Curvature(ABC):
    """A recipe: which blocks, which statistics, which operator.

    Attributes:
        name: as it is registered.
        source: the paper it is from, for tables.
        help: one sentence for lists.
        of_gradient: whether the batch gradient is all it needs; the model is not recorded then.
        of_inputs: whether the inputs of layers are all it needs; no backward pass is made for it then.
        of_batches: whether the statistics of a batch are no sums over its examples; a pass over the data then averages
            batch by batch.
        halved: whether a profile averages over two halves of the data too, for standard errors.
        holds_inputs: whether the sums of a backward pass need the inputs too, which are kept until then.
        contents: what its averages are called where a profile leaves those of a large block out; None for its name.
        largest: bytes of one block's averages, those of halves included, beyond which a profile without a memory limit
            leaves it out; None for any size.
        fisher_type: targets of the output gradients: "mc", "type-2" or "empirical".
        mc_samples: sampled targets per example for "mc".
        room: memory for one matrix of averages, where rows stand for it.
    """

    name: ClassVar[str] = ""
    source: ClassVar[str] = ""
    help: ClassVar[str] = ""
    of_gradient: ClassVar[bool] = False
    of_inputs: ClassVar[bool] = False
    of_batches: bool = False
    halved: ClassVar[bool] = True
    holds_inputs: ClassVar[bool] = True
    contents: ClassVar[str | None] = None
    largest: ClassVar[int | None] = 2 * 2**30
    fisher_type: str = "mc"
    mc_samples: int = 1
    room: Room = Room()

    def recipe(self) -> dict[str, str | float]:
        """The settings that averages depend on: averages of another recipe cannot be continued."""
        return {name: value for name, value in vars(self).items() if isinstance(value, str | float)}

    @abstractmethod
    def blocks(self, found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
        """The blocks of a model; parameters of none of them follow the plain gradient.

        `found` is None for a recipe of the gradient, which never records the model.
        """

    def profiled(self, found: Survey) -> list[PreconditionerBlock]:
        """The blocks of a profile, where nothing is preconditioned; those of training by default."""
        layers = found.blocks.values()
        parameters = {n: block.layer.parameters[r] for block in layers for r, n in block.parameters.items()}
        return self.blocks(found, parameters)

    def inputs(self, block: PreconditionerBlock, samples: Samples) -> State:
        """Sums over the examples of one (micro-)batch of the inputs of the block's layers."""
        return {}

    def output_gradients(self, block: PreconditionerBlock, samples: Samples, passed: int, averages: State) -> State:
        """Sums over the examples in backward pass number `passed`; the inputs are in the samples too.

        Several passes (columns of an exact expectation, sampled targets) are scaled so that their sums add up.
        """
        return {}

    def add(self, held: State, fresh: State, own: Container[str]) -> None:
        """Add the sums of one more batch to `held`; of its tensors only those named in `own` may be overwritten, of
        those of `fresh` none."""
        for key, value in fresh.items():
            held[key] = plus(held.get(key), value, key in own)

    @abstractmethod
    def average(self, block: PreconditionerBlock, sums: State, count: Count) -> State:
        """The statistics of the whole batch from its sums, in the scale of docs/curvature.md.

        For a recipe of the gradient the only sum is "gradient", the block's batch-mean gradient. Sums must not be
        overwritten: samples, and the sums of a part of the data, may hold the same tensors.
        """

    def operators(
        self, blocks: Sequence[PreconditionerBlock], states: Sequence[State], settings: Sequence[Mapping[str, Any]]
    ) -> list[Operator | None]:
        """The inverted, damped operators of all blocks at once, so that equal sizes share a batched call.

        Args:
            blocks: whose.
            states: their averages; a recipe may add tensors of its own (EKFAC's basis).
            settings: their groups' hyper-parameters ("damping", ...).

        Returns:
            One operator to apply with `product` per block; None where it could not be made. By default (B + λI)⁻¹ with
            B the block's `operator` and λ its group's damping.
        """
        found = [self.operator(block, state) for block, state in zip(blocks, states, strict=True)]
        return damped_inverses(found, settings)

    def operator(self, block: PreconditionerBlock, state: State) -> Operator | None:
        """The matrix that is inverted, undamped, from the averages of one block: what a profile shows the spectrum of.

        None (the default) for a recipe that has nothing to show.
        """
        return None

    def bytes(self, block: PreconditionerBlock) -> int:
        """Memory that the averages of one block take in float64: W̄ as one square matrix, unless a recipe needs
        less."""
        return 8 * prod(block.shape) ** 2

    def kept(self, block: PreconditionerBlock, examples: int | None, passes: int, number: int) -> Sequence[Kept]:
        """The memory of one block's matrices after a pass over so many examples; `bytes` unless rows are kept.

        Args:
            block: whose sums.
            examples: N; None where it is not known, for the most they can take.
            passes: backward passes over every batch.
            number: bytes of a number in the network's own type, which rows are kept in.
        """
        size = self.bytes(block)
        return (Kept(size, size, 2 * size),)

    def merge(self, state: State, fresh: State, weight: float) -> State:
        """x ← βx + (1 − β)x_new for every statistic, β = `weight`, in place; a statistic seen for the first time is
        stored unscaled."""
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


def plus(held: Tensor | None, value: Tensor, own: bool) -> Tensor:
    """held + value, in place where `held` may be overwritten; the value itself where nothing is held yet."""
    if held is None:
        return value
    return held.add_(value) if own else held + value
