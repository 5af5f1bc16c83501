"""What torch calls are named, and which of them look at a tensor, make constants of it or repeat it."""

from __future__ import annotations

from typing import Any

LOOKS = frozenset(
    {
        "grad",
        "requires_grad_",
        "requires_grad",
        "shape",
        "dtype",
        "device",
        "size",
        "dim",
        "ndim",
        "numel",
        "is_floating_point",
        "is_complex",
        "data_ptr",
        "element_size",
        "stride",
        "item",
        "tolist",
        "layout",
        "is_leaf",
    }
)
"""Calls that use no entry of a tensor for another tensor."""

CONSTANTS = frozenset(
    {
        "detach",
        "data",
        "zeros_like",
        "ones_like",
        "empty_like",
        "full_like",
        "rand_like",
        "randn_like",
        "new_zeros",
        "new_ones",
        "new_empty",
        "new_full",
        "new_tensor",
        "argmax",
        "argsort",
    }
)
"""Calls whose result has no derivative with respect to their arguments."""

LIKE = frozenset({"to", "type_as", "expand_as", "view_as", "reshape_as"})
"""Calls that take of a second tensor its type or shape alone."""

EXPANSIONS = frozenset({"expand", "expand_as", "repeat", "broadcast_to", "tile"})
"""Calls that repeat a tensor along axes."""


def operation_name(func: Any) -> str:
    """The name of a function or method; of a property's getter the property's."""
    name = getattr(func, "__name__", str(func))
    return getattr(getattr(func, "__self__", None), "__name__", name) if name == "__get__" else name
