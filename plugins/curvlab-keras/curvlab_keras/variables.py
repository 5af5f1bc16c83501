"""The variables of a Keras layer as torch parameters, and the reasons why some layers are no affine map of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from curvlab.errors import UnsupportedLayer


def value(variable: Any) -> Tensor | None:
    """The parameter that a Keras variable holds; None for no variable."""
    if variable is None:
        return None
    tensor: Tensor = variable.value
    return tensor


def check(layer: Any, base: type) -> None:
    """Raise UnsupportedLayer unless the layer computes what `base` does, from weights of its own.

    Raises:
        UnsupportedLayer: not built, a `call` of its own, low-rank adapters or packed integers in place of the kernel.
    """
    kind = type(layer).__name__
    if not layer.built:
        raise UnsupportedLayer(f"{kind} {layer.name!r} is not built", "it has no weights yet", "call it on data first")
    if type(layer).call is not base.call:  # type: ignore[attr-defined]
        raise UnsupportedLayer(f"{kind} is a {base.__name__} with a call of its own", "what it computes is not known")
    if getattr(layer, "lora_enabled", False):
        raise UnsupportedLayer(f"{kind} {layer.name!r} has low-rank adapters", "its kernel is computed from them")
    if layer.quantization_mode is not None:
        raise UnsupportedLayer(f"{kind} {layer.name!r} is quantised", "its kernel is stored in packed integers")


def first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The input of a layer among the arguments of a call."""
    return args[0] if args else next(iter(kwargs.values()))
