"""FOP's learned matrices: eigenvalues and norm of P, its weights by distance in the kernel, ∠(g, Pg) (fop 5, A.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from curvlab.analyses.entries import Entry
from curvlab.analyses.mean_gradient import MeanGradient
from curvlab.analyses.results import FopResult, GradientAngle, KernelStructure
from curvlab.errors import NumericalError
from curvlab.formats.curvlab_file.fop_matrices import FopMatrices
from curvlab.linalg.float64 import double
from curvlab.operators.eigenvalues import eigenvalues
from curvlab.operators.operator import Diagonal, LowRank, Operator
from curvlab.operators.spectrum import spectrum
from curvlab.operators.woodbury import Woodbury
from curvlab.shapes import Float


def fop_results(
    fop: FopMatrices,
    entries: Sequence[Entry],
    shapes: Mapping[str, tuple[int, ...]],
    gradient: MeanGradient | None,
    memory: int | None,
) -> tuple[FopResult, ...]:
    """One result per learned matrix, in the order of the rows of the report.

    Args:
        fop: of the file.
        entries: rows of the report; matrices of parameters that are in none are left out.
        shapes: of the parameters.
        gradient: g of every parameter with a matrix; None without data.
        memory: bytes that the eigenvalues of one matrix may take; None for no limit.
    """
    first = {parameter: entry.name for entry in reversed(entries) for parameter in entry.tensors}
    order = dict.fromkeys(parameter for entry in entries for parameter in entry.tensors)
    return tuple(
        fop_result(fop, parameter, first[parameter], shapes[parameter], gradient, memory)
        for parameter in order
        if parameter in fop.factors
    )


def fop_result(
    fop: FopMatrices,
    parameter: str,
    name: str,
    shape: tuple[int, ...],
    gradient: MeanGradient | None = None,
    memory: int | None = None,
) -> FopResult:
    """Of one matrix; arguments as in `fop_results`, `name` and `shape` of the parameter's layer and of itself."""
    m = fop.factors[parameter]
    result = FopResult(
        name=name,
        parameter=parameter,
        form=fop.forms[parameter],
        size=m.shape[0],
        rank=m.shape[1],
        normalized=fop.normalized[parameter],
        kernel=shape[2:] or None,
    )
    wrong = int((~m.isfinite()).sum())
    if wrong:
        return replace(result, note=f"{wrong} of {m.numel()} entries of M are not finite")
    form, m = fop.form(parameter), double(m)
    operator = form.operator(m)
    result = replace(result, structure=kernel_structure(operator, result.kernel or ()))
    needed = 16 * min(m.shape) ** 2
    if memory is not None and needed > memory:
        result = replace(result, note=f"no eigenvalues: they need {needed} bytes, and {memory} are allowed")
    else:
        try:
            values = eigenvalues(operator)
            norm = values.norm().item()
            result = replace(result, spectrum=spectrum(Diagonal(values)), norm=norm if math.isfinite(norm) else None)
        except NumericalError as reason:
            result = replace(result, note=str(reason))
    if gradient is None or parameter not in gradient.means:
        return result
    g = gradient.means[parameter]
    turned = angle(g, form.apply(m, g))
    if turned is not None and m.shape[0] == 1:
        turned = 0.0  # a learned rate turns nothing, whatever rounding says
    return replace(result, angle=GradientAngle(turned, gradient.targets, gradient.examples))


def angle(g: Float[Tensor, "*shape"], u: Float[Tensor, "*shape"]) -> float | None:
    """∠(g, u) = 2·atan2(‖ĝ − û‖, ‖ĝ + û‖) in degrees, accurate near 0 too (Kahan); None where one of them is zero."""
    lengths = g.norm().item(), u.norm().item()
    if not all(math.isfinite(length) and length > 0 for length in lengths):
        return None
    a, b = g / lengths[0], u / lengths[1]
    return math.degrees(2 * math.atan2((a - b).norm().item(), (a + b).norm().item()))


def kernel_structure(operator: Operator, kernel: Sequence[int]) -> KernelStructure | None:
    """Means of P_ij by where i and j are in the kernel: the same position, next to it along an axis, elsewhere.

    P is `LowRank` or `Woodbury` of rows `[k, d]`, d positions in row-major order; of k·d numbers it takes a few passes
    and never forms P. None where P's entries are beyond float64.

    Args:
        operator: P.
        kernel: sizes of its axes; empty for inputs without known neighbours.
    """
    assert isinstance(operator, LowRank | Woodbury)
    m, scale = double(operator.rows).mT, operator.scale
    added = float(operator.lam) if isinstance(operator, Woodbury) else 0.0
    diagonal = (scale * m.square().sum() + added * len(m)).item()
    everything = (scale * m.sum(0).square().sum() + added * len(m)).item()
    grid = m.reshape(*kernel, m.shape[1]) if kernel else m
    pairs = [
        scale * (grid.narrow(a, 0, n - 1) * grid.narrow(a, 1, n - 1)).sum(-1).flatten() for a, n in enumerate(kernel)
    ]
    near, count = torch.cat(pairs) if pairs else m.new_zeros(0), len(m) * (len(m) - 1) // 2
    if not math.isfinite(everything) or not bool(near.isfinite().all()):
        return None
    far = (everything - diagonal) / 2 - near.sum().item()
    return KernelStructure(
        diagonal=diagonal / len(m),
        neighbours=tuple(one.mean().item() if len(one) else None for one in pairs),
        others=far / (count - len(near)) if count > len(near) else None,
        negative=(near < 0).double().mean().item() if len(near) else None,
    )
