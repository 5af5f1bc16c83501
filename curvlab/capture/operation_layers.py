"""OperationLayers: the layers that operations are of parameters, the same in every batch, and what uses are called."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from torch import Tensor

from curvlab.layers.expression import Expression, apply, inside
from curvlab.layers.form import Form
from curvlab.layers.layer import Layer
from curvlab.layers.operations.linear import canonical
from curvlab.layers.operations.operation import AffineUse
from curvlab.layers.viewed import ViewedLayer


class OperationLayers:
    """Layers by what they are of.

    Attributes:
        stacks: what makes the name and the layer of another entry of stacked weights, by what it is of: experts that no
            row went to.
    """

    def __init__(self) -> None:
        self._layers: dict[Hashable, Layer] = {}
        self._names: dict[tuple[str, str], list[Hashable]] = {}
        self.stacks: dict[tuple[Hashable, ...], Callable[[int], tuple[str, Layer]]] = {}

    def begin(self) -> None:
        """A forward pass begins: uses are numbered anew, in the order they come in."""
        self._names = {}

    def name(self, use: AffineUse, layer: Layer) -> str:
        """What a use is called: two of one parameter in different ways are told apart by their number."""
        name, key = name_of(use.weights), _key(use)
        known = self._names.setdefault((name, layer.kind), [])
        if key not in known:
            known.append(key)
        place = known.index(key)
        return f"{name}#{place + 1}" if place else name

    def of(self, use: AffineUse) -> Layer:
        """The layer of a use; the same one in every batch."""
        use = canonical(use)
        key = _key(use)
        if pulled_back(use):
            return use.make(**{role: one.value.detach() for role, one in use.weights.items()})
        fixed = all(one.fixed for one in use.weights.values())
        layer = self._layers.get(key) if fixed else None
        if layer is None:
            layer = _layer_of(use.make, use.weights)
            if fixed:
                self._layers[key] = layer
        for one in use.weights.values():
            if one.place is not None and one.name in ("__getitem__", "select", "unbind"):
                self.stacks.setdefault((use.make.__qualname__, *one.parameters), _stack(use))
        return layer


def pulled_back(use: AffineUse) -> bool:
    """Whether a use has no layer of its own: it is of an expression that is not linear, or adds or multiplies
    with a slice of a parameter, such as the positions that a batch has, whose length may be another one in the next."""
    forms = [one.form for one in use.weights.values()]
    sliced = any(one.form is Form.PART and one.place is None for one in use.weights.values())
    return Form.OTHER in forms or (use.key in ("bias", "scale") and sliced)


def _key(use: AffineUse) -> Hashable:
    return (use.make.__qualname__, use.key, *((role, one.key) for role, one in use.weights.items()))


def _stack(use: AffineUse) -> Callable[[int], tuple[str, Layer]]:
    """place -> the use and layer of another entry of the first axis of the same weights."""

    def other(place: int) -> tuple[str, Layer]:
        moved = {role: _entry(one, place) for role, one in use.weights.items()}
        return name_of(moved), _layer_of(use.make, moved)

    return other


def _entry(one: Expression, place: int) -> Expression:
    root = next(inside(one.arguments))
    if one.name not in ("__getitem__", "select", "unbind"):
        return apply(one.function, one.name, _entry(root, place), *one.arguments[1:])
    value = root.value.detach()[place]
    return Expression(value, Tensor.__getitem__, (root, place), {}, None, "__getitem__")


def _layer_of(make: Callable[..., Layer], weights: Mapping[str, Expression]) -> Layer:
    if all(one.form is Form.PARAMETER for one in weights.values()):
        return make(**{role: next(iter(one.parameters.values())) for role, one in weights.items()})
    lean = {role: one.lean() for role, one in weights.items()}
    return ViewedLayer(make(**{role: one.value for role, one in lean.items()}), lean)


def name_of(weights: Mapping[str, Expression]) -> str:
    """What a use is called: by its first parameter, and by what is taken of it."""
    one = next(iter(weights.values()))
    parameter = next(iter(one.parameters))
    if one.place is not None:
        owner, _, own = parameter.rpartition(".")
        return ".".join(part for part in (owner, str(one.place), own) if part)
    return parameter + one.taken
