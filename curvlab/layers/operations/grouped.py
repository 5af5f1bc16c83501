"""F.grouped_mm: rows sorted by expert, each group times its expert's matrix."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.layers.expression import Expression, apply
from curvlab.layers.operations.linear import transposed_layer
from curvlab.layers.operations.operation import AffineUse, register


def grouped_mm(
    mat_a: Any, mat_b: Any, offs: Any = None, bias: Any = None, out_dtype: Any = None
) -> list[AffineUse] | None:
    """x[offs[e − 1] : offs[e]] W_e for every expert e; of a weight (experts, in, out)."""
    if not isinstance(mat_a, Tensor) or not isinstance(mat_b, Expression) or not isinstance(offs, Tensor):
        return None
    if bias is not None or mat_a.ndim != 2 or mat_b.value.ndim != 3:
        return None
    found, start = [], 0
    for place, end in enumerate(offs.tolist()):
        rows = slice(start, end)
        weight = apply(torch.select, "select", mat_b, 0, place)

        def output(y: Tensor, rows: slice = rows) -> Tensor:
            return y[rows]

        found.append(AffineUse(transposed_layer, {"weight": weight}, mat_a[rows], mat_a, rows, output, place))
        start = end
    return found


FUNCTIONS = [getattr(F, "grouped_mm", None), getattr(torch, "_grouped_mm", None)]
register(*(one for one in FUNCTIONS if one is not None))(grouped_mm)


@register("transformers::grouped_mm_fallback")
def fallback(input: Any, weight: Any, offs: Any) -> list[AffineUse] | None:
    """The same product, as transformers computes it where torch cannot."""
    return grouped_mm(input, weight, offs)
