"""AffineUse and `register`: an operation of torch as an affine map of its parameters.

An adapter has the signature of the function that it is registered for. Arguments that are parameters, or expressions of
parameters alone, come as `Expression`; all others as they are. It returns the maps that the call is made of (a product
with the experts' matrices is one for each of them), or None where it is no affine map of these arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from curvlab.layers.expression import Expression
from curvlab.layers.layer import Layer


def itself(y: Tensor) -> Tensor:
    """y."""
    return y


@dataclass(frozen=True)
class AffineUse:
    """One affine map of an operation.

    Attributes:
        make: makes the layer of the tensors in `weights`, by role.
        weights: role -> the expression that is used.
        x: the layer's input.
        source: the argument whose rows `x` has.
        rows: which of them, None for all.
        output: takes this map's output, or the gradient there, out of the operation's.
        key: what tells this layer from others of the same weights.
    """

    make: Callable[..., Layer]
    weights: Mapping[str, Expression]
    x: Tensor
    source: Tensor
    rows: slice | None = None
    output: Callable[[Tensor], Tensor] = itself
    key: Hashable = ()


Adapter = Callable[..., Sequence[AffineUse] | None]
T = TypeVar("T", bound=Adapter)

_ADAPTERS: dict[Any, tuple[Adapter, inspect.Signature]] = {}


def register(*functions: Any) -> Callable[[T], T]:
    """Register the adapter of some functions of torch, methods of Tensor too; or of an operator by its full name."""

    def add(adapter: T) -> T:
        for function in functions:
            _ADAPTERS[function] = adapter, inspect.signature(adapter)
        return adapter

    return add


def uses_of(function: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Sequence[AffineUse] | None:
    """The affine maps of a call; None where no adapter knows it so."""
    found = _ADAPTERS.get(function) or _ADAPTERS.get(getattr(function, "_qualified_op_name", None))
    if found is None:
        return None
    adapter, signature = found
    try:
        signature.bind(*arguments, **keywords)
    except TypeError:  # an option that the adapter does not know
        return None
    return adapter(*arguments, **keywords)


def weights(**given: Any) -> dict[str, Expression]:
    """The arguments that are expressions, by role; constants beside them have no curvature."""
    return {role: one for role, one in given.items() if isinstance(one, Expression)}
