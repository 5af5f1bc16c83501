"""A curvature of one's own: the diagonal of the Fisher matrix, F ≈ diag(E[DW_n²])."""

from __future__ import annotations

from curvlab.curvatures.blocks import layer_matrices
from curvlab.curvatures.curvature import Curvature
from curvlab.curvatures.per_example import block_gradients
from curvlab.curvatures.registry import register
from curvlab.operators.operator import Diagonal


@register("diagonal", source="LeCun et al. 1998", help="the Fisher matrix's diagonal E[g²], layer by layer")
class DiagonalFisher(Curvature):
    """Each entry of W̄ by itself."""

    def blocks(self, found, parameters):
        return layer_matrices(found)

    def output_gradients(self, block, samples, passed, averages):
        return {"square": block_gradients(block, samples).square().sum(0)}

    def average(self, block, sums, count):
        return {"square": sums["square"] / count.examples}

    def operator(self, block, state):
        return Diagonal(state["square"].flatten())
