"""The Fisher's diagonal: E[D²] = 1/N Σ_n D_n² of every parameter, D_n the gradient of one example (Kirkpatrick et al.
2017; Matena and Raffel 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import ClassVar

from torch import Tensor

from curvlab.capture.batch_record import Samples
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock, parameter_tensors
from curvlab.curvatures.curvature import Count, Curvature, State
from curvlab.operators.operator import Diagonal, Operator
from curvlab.statistics.squared_gradients import squared_gradients


class FisherDiagonal(Curvature):
    """E[D²], the mean of the squared gradients of examples, which is not (E D)², the squared gradient of a batch.

    Positions that share a weight, and several uses of one, are one gradient before it is squared: (Σ_t g aᵀ)².
    """

    name = "fisher-diagonal"
    contents: ClassVar[str | None] = "the Fisher's diagonal"
    largest: ClassVar[int | None] = None
    halved: ClassVar[bool] = False

    def blocks(self, found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
        """One per parameter of a layer; the gradients of its uses add up."""
        return parameter_tensors(found, parameters)

    def output_gradients(self, block: PreconditionerBlock, samples: Samples, passed: int, averages: State) -> State:
        """Σ_n D_n², in the parameter's own shape."""
        parts = [(samples[use.block.name], use.role or "") for use in block.uses if use.block.name in samples]
        sample, role = parts[0]
        return {"squares": squared_gradients(parts, tuple(sample.layer.parameters[role].shape))}

    def average(self, block: PreconditionerBlock, sums: State, count: Count) -> State:
        """E[D²] over examples."""
        return {key: total.to(count.dtype or total.dtype) / count.examples for key, total in sums.items()}

    def operator(self, block: PreconditionerBlock, state: State) -> Operator | None:
        """diag(E[D²]), the parameter flattened row by row."""
        return Diagonal(state["squares"].flatten())

    def bytes(self, block: PreconditionerBlock) -> int:
        """One number per entry of the parameter."""
        return 8 * prod(block.shape)
