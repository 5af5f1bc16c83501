"""Form: what a function f of parameters is, from the names of the operations that it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from curvlab.layers.call_arguments import leaves


class Form(IntEnum):
    """What f is, the simplest first: P itself, its entries in another order, some of them, linear, linear and a
    constant, or none of these."""

    PARAMETER = 0
    REARRANGED = 1
    PART = 2
    LINEAR = 3
    AFFINE = 4
    OTHER = 5


CASTS = frozenset(
    {"to", "float", "double", "half", "bfloat16", "type", "type_as", "contiguous", "clone", "cpu", "cuda"}
)
"""Operations that give the same numbers, in another type or place."""

FORMS: Mapping[str, Form] = {
    **dict.fromkeys(
        ("t", "T", "mT", "transpose", "permute", "reshape", "view", "flatten", "unflatten"), Form.REARRANGED
    ),
    **dict.fromkeys(("squeeze", "unsqueeze", "movedim", "moveaxis", "swapaxes", "swapdims", "flip"), Form.REARRANGED),
    **dict.fromkeys(("view_as", "reshape_as", "adjoint"), Form.REARRANGED),
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split", "unbind", "narrow", "select"), Form.PART),
    **dict.fromkeys(("__getitem__", "index_select", "diagonal"), Form.PART),
    **dict.fromkeys(("expand", "expand_as", "repeat", "broadcast_to", "repeat_interleave", "tile"), Form.LINEAR),
    **dict.fromkeys(("sum", "mean", "neg", "__neg__", "cat", "concat", "stack", "pad", "roll", "conj"), Form.LINEAR),
    **dict.fromkeys(("tril", "triu", "unfold", "masked_fill", "gather", "take", "linear", "interpolate"), Form.LINEAR),
}
"""Name of an operation -> what it is of its one tensor argument."""

ADDITIONS = frozenset({"add", "sub", "__add__", "__radd__", "__sub__", "__rsub__", "subtract", "rsub"})
PRODUCTS = frozenset({"mul", "div", "__mul__", "__rmul__", "__truediv__", "multiply", "divide", "true_divide"})
BILINEAR = frozenset({"matmul", "__matmul__", "mm", "bmm", "einsum"})


def form_of(name: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any], operands: Sequence[object]) -> Form:
    """What one operation is of its arguments, of which `operands` depend on parameters."""
    known = {id(one) for one in operands}
    if name == "__getitem__" and all(_is_whole(one) for one in leaves(arguments[1:])):
        return Form.REARRANGED
    if name in FORMS:
        joins = name in ("cat", "concat", "stack")
        one = joins or (len(operands) == 1 and bool(arguments) and arguments[0] is operands[0])
        return FORMS[name] if one else Form.OTHER
    constants = [one for one in leaves((arguments, keywords)) if id(one) not in known]
    if name in ADDITIONS:
        return Form.AFFINE if constants else Form.LINEAR
    divides = name in ("div", "__truediv__", "divide", "true_divide")
    if name in PRODUCTS and len(operands) == 1 and not (divides and arguments[0] is not operands[0]):
        return Form.LINEAR
    if name in BILINEAR and len(operands) == 1:
        return Form.LINEAR
    return Form.OTHER


def _is_whole(index: Any) -> bool:
    """Whether an index takes nothing away."""
    return index is None or index is Ellipsis or index == slice(None)
