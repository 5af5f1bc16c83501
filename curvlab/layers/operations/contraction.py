"""matmul, bmm, baddbmm and einsum of an activation and a weight: s = W x over whichever axes they share.

An axis that both have and that is kept (the experts of a batched product) makes one map for each of its entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from curvlab.layers.expression import Expression, apply
from curvlab.layers.operations.linear import linear_layer, transposed_layer
from curvlab.layers.operations.operation import AffineUse, register, weights

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def contraction(x: Tensor, weight: Expression, equation: tuple[str, str, str]) -> list[AffineUse] | None:
    """The maps of y = einsum("x, w -> y"); None for what is no matrix product.

    Args:
        x: the activation.
        weight: the weight.
        equation: one letter per axis of x, of the weight and of y.
    """
    of_x, of_w, of_y = equation
    groups = [a for a in of_w if a in of_x and a in of_y]
    summed = [a for a in of_w if a in of_x and a not in of_y]
    outs = [a for a in of_w if a in of_y and a not in of_x]
    kept = [a for a in of_x if a not in of_w]
    if len({*of_x}) + len({*of_w}) < len(of_x) + len(of_w) or len(groups) > 1 or not summed or not kept:
        return None
    if any(a not in of_y for a in kept) or sorted([*groups, *outs, *kept]) != sorted(of_y):
        return None

    def arranged(t: Tensor, letters: str, last: list[str]) -> Tensor:
        """Group, positions, and the last axes as one."""
        moved = t.permute([letters.index(a) for a in [*groups, *kept, *last]])
        return moved if len(last) == 1 else moved.flatten(len(groups) + len(kept)) if last else moved[..., None]

    rows, plain = arranged(x, of_x, summed), len(outs) == len(summed) == 1
    if not groups:
        if plain:
            make, w = (linear_layer, weight) if of_w == outs[0] + summed[0] else (transposed_layer, weight)
        else:
            make, w = linear_layer, _matrix(weight, of_w, outs, summed)
        return [AffineUse(make, {"weight": w}, rows, x, output=lambda y: arranged(y, of_y, outs))]
    axis, rest = of_w.index(groups[0]), of_w.replace(groups[0], "")
    found = []
    for place in range(weight.value.shape[axis]):
        one = apply(torch.select, "select", weight, axis, place)
        if not plain:
            one = _matrix(one, rest, outs, summed)
        make = transposed_layer if plain and rest == summed[0] + outs[0] else linear_layer

        def output(y: Tensor, place: int = place) -> Tensor:
            return arranged(y, of_y, outs)[place]

        found.append(AffineUse(make, {"weight": one}, rows[place], x, output=output, key=place))
    return found


def _matrix(weight: Expression, letters: str, outs: list[str], summed: list[str]) -> Expression:
    """The weight as (out, in)."""
    order = [letters.index(a) for a in [*outs, *summed]]
    moved = weight if order == sorted(order) else apply(torch.permute, "permute", weight, order)
    sizes = dict(zip(letters, weight.value.shape, strict=True))
    shape = (prod(sizes[a] for a in outs), prod(sizes[a] for a in summed))
    return moved if tuple(moved.value.shape) == shape else apply(torch.reshape, "reshape", moved, shape)


@register(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm)
def matmul(input: Any, other: Any) -> list[AffineUse] | None:
    """x W, or W x."""
    left = isinstance(input, Expression)
    x, weight = (other, input) if left else (input, other)
    if not isinstance(x, Tensor) or not isinstance(weight, Expression) or x.ndim < 2 or weight.value.ndim < 2:
        return None
    weight, x = _without_ones(weight), x
    batch = weight.value.ndim - 2
    lead = _LETTERS[: max(x.ndim - 2, batch)]
    of_w, of_x = lead[len(lead) - batch :], lead[len(lead) - (x.ndim - 2) :]
    for a in [a for a in of_w if a in of_x]:
        axis = of_x.index(a)
        if x.shape[axis] == 1 and weight.value.shape[of_w.index(a)] > 1:
            x, of_x = x.squeeze(axis), of_x.replace(a, "")
    if left:
        return contraction(x, weight, (f"{of_x}YZ", f"{of_w}XY", f"{lead}XZ"))
    return contraction(x, weight, (f"{of_x}XY", f"{of_w}YZ", f"{lead}XZ"))


def _without_ones(weight: Expression) -> Expression:
    while weight.value.ndim > 2 and weight.value.shape[0] == 1:
        weight = apply(torch.select, "select", weight, 0, 0)
    return weight


@register(torch.baddbmm, Tensor.baddbmm)
def baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> list[AffineUse] | None:
    """b + x W for every entry of the first axis."""
    if not isinstance(batch1, Tensor) or not isinstance(batch2, Expression) or beta != 1 or alpha != 1:
        return None
    found = contraction(batch1, batch2, ("eXY", "eYZ", "eXZ"))
    if found is None or not isinstance(input, Expression):
        return found
    if tuple(input.value.shape) != (batch2.value.shape[0], 1, batch2.value.shape[2]):
        return None
    biases = [
        apply(torch.reshape, "reshape", apply(torch.select, "select", input, 0, e), (-1,)) for e in range(len(found))
    ]
    return [
        AffineUse(one.make, weights(**one.weights, bias=bias), one.x, one.source, None, one.output, one.key)
        for one, bias in zip(found, biases, strict=True)
    ]


@register(torch.einsum)
def einsum(equation: Any, *operands: Any) -> list[AffineUse] | None:
    """Any equation of one activation and one weight."""
    parts: Sequence[Any] = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    if not isinstance(equation, str) or len(parts) != 2 or "->" not in equation:
        return None
    inputs, _, of_y = equation.replace(" ", "").partition("->")
    letters = inputs.split(",")
    shapes = [one.value.shape if isinstance(one, Expression) else one.shape for one in parts]
    free = [a for a in _LETTERS if a not in equation]
    if "..." in equation:
        counts = [len(shape) - len(own.replace("...", "")) for own, shape in zip(letters, shapes, strict=True)]
        dots = "".join(free[: max(counts)])
        letters = [
            own.replace("...", dots[len(dots) - count :] if "..." in own else "")
            for own, count in zip(letters, counts, strict=True)
        ]
        of_y = of_y.replace("...", dots)
    (a, b), (of_a, of_b) = parts, letters
    if isinstance(a, Tensor) and isinstance(b, Expression):
        return contraction(a, b, (of_a, of_b, of_y))
    if isinstance(a, Expression) and isinstance(b, Tensor):
        return contraction(b, a, (of_b, of_a, of_y))
    return None
