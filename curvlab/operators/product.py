"""An operator applied to a tensor that is laid out in the operator's modes."""

from __future__ import annotations

import math
from functools import singledispatch
from itertools import accumulate
from operator import mul

from torch import Tensor

from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank, Operator
from curvlab.shapes import Float, Inexact


def product(operator: Operator, x: Inexact[Tensor, "*shape"]) -> Inexact[Tensor, "*shape"]:
    """F vec(x), in the shape and dtype of x, where vec reads row by row (as `flatten` does).

    For `Kronecker((U_1, …, U_k))` and x `[d_1, …, d_k]` this is x ×_1 U_1 ×_2 … ×_k U_k: factor j acts on mode j. So a
    layer's matrix M `[o, i]` has the factors (G, A), in this order, and the product is G M A (A and G are symmetric;
    of a Hermitian factor H on the second mode it is M Hᵀ);
    M `[g, o, i]` of a grouped layer has a `GroupedKronecker` of the stacks (G, A). Nothing of size d_1⋯d_k squared is
    formed.

    Args:
        x: its last axes hold operator.size numbers in all, however they are split into axes (`[o, i, kh, kw]` may
            stand for the modes o, i, kh·kw); axes before them are a batch.

    Raises:
        ValueError: no number of last axes of x has operator.size entries.
        TypeError: no function is registered for this type of operator in `along`.
    """
    if x.numel() != operator.size and operator.size not in accumulate(reversed(x.shape), mul):
        raise ValueError(f"a tensor of shape {tuple(x.shape)} does not fit an operator of size {operator.size}")
    return along(operator, x.reshape(-1, operator.size, 1)).reshape(x.shape)


@singledispatch
def along(operator: Operator, x: Inexact[Tensor, "l d r"]) -> Inexact[Tensor, "l d r"]:
    """y[l, :, r] = F x[l, :, r]: the operator on the middle axis; what a type of operator registers for `product`."""
    raise TypeError(f"product: no rule is registered for {type(operator).__name__}")


@along.register
def _(operator: Dense, x: Inexact[Tensor, "l d r"]) -> Inexact[Tensor, "l d r"]:
    return multiply_mode(operator.matrix, x)


@along.register
def _(operator: Diagonal, x: Float[Tensor, "l d r"]) -> Float[Tensor, "l d r"]:
    return x * operator.values[:, None]


@along.register
def _(operator: LowRank, x: Float[Tensor, "l d r"]) -> Float[Tensor, "l d r"]:
    return operator.rows.mT @ (operator.rows @ x * operator.scale)


@along.register
def _(operator: Grouped, x: Float[Tensor, "l d r"]) -> Float[Tensor, "l d r"]:
    return multiply_modes((operator.stack,), x)


@along.register
def _(operator: Kronecker, x: Inexact[Tensor, "l d r"]) -> Inexact[Tensor, "l d r"]:
    y, left, right = x, x.shape[0], operator.size * x.shape[2]
    for factor in operator.factors:
        right //= factor.size
        y = along(factor, y.reshape(left, factor.size, right))
        left *= factor.size
    return y.reshape(x.shape)


@along.register
def _(operator: GroupedKronecker, x: Float[Tensor, "l d r"]) -> Float[Tensor, "l d r"]:
    return multiply_modes(tuple(factor.stack for factor in operator.factors), x)


def multiply_modes(
    stacks: tuple[Tensor | None, ...], x: Float[Tensor, "l d r"], sizes: tuple[int, ...] = ()
) -> Float[Tensor, "l d r"]:
    """y[l, :, r] = blockdiag_g(stacks[0][g] ⊗ stacks[1][g] ⊗ …) x[l, :, r].

    Args:
        stacks: `[g, d_j, d_j]`; None is the identity, and then `sizes` is needed.
        x: its middle axis is g·d_1⋯d_k long.
        sizes: d_1, …, d_k.
    """
    sizes = sizes or tuple(stack.shape[-1] for stack in stacks if stack is not None)
    count, size, rest = x.shape
    right = math.prod(sizes)
    groups = size // right
    right *= rest
    y = x
    for stack, d in zip(stacks, sizes, strict=True):
        right //= d
        if stack is None:
            continue
        if groups == 1:
            y = multiply_mode(stack[0], y.reshape(-1, d, right))
        else:
            y = _multiply_group_modes(stack, y.reshape(count, groups, -1, d, right))
    return y.reshape(x.shape)


def multiply_mode(matrix: Inexact[Tensor, "d d"], x: Inexact[Tensor, "l d r"]) -> Inexact[Tensor, "l d r"]:
    """y[l, :, r] = matrix x[l, :, r], as one matrix product."""
    count, d, right = x.shape
    if right == 1:
        return (x.reshape(count, d) @ matrix.mT)[..., None]
    if count == 1:
        return (matrix @ x[0])[None]
    # A middle mode is copied: a batch of products as thin as a kernel's positions takes longer.
    columns = x.movedim(1, 0)
    return (matrix @ columns.reshape(d, -1)).view(columns.shape).movedim(0, 1)


def _multiply_group_modes(stack: Float[Tensor, "g d d"], x: Float[Tensor, "l g a d r"]) -> Float[Tensor, "l g a d r"]:
    """y[l, g, a, :, r] = stack[g] x[l, g, a, :, r], as one matrix product per group."""
    count, groups, _, d, right = x.shape
    if right == 1 and count == 1:
        return (x.reshape(groups, -1, d) @ stack.mT).reshape(x.shape)
    columns = x.permute(1, 3, 0, 2, 4)
    return (stack @ columns.reshape(groups, d, -1)).view(columns.shape).permute(2, 0, 3, 1, 4)
