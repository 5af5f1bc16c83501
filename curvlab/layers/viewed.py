"""ViewedLayer: an affine map whose weight is a linear expression of parameters: transposed, a part, several in one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from curvlab.layers.expression import Expression
from curvlab.layers.form import Form
from curvlab.layers.layer import Layer, Moments
from curvlab.shapes import Float


class ViewedLayer(Layer):
    """W̄ = L(f(P)) for a layer L whose tensors are linear expressions f of parameters P.

    `matrix` has the linear part of f, `split` its transpose: a gradient of a part is a gradient of the parameter with
    zeros elsewhere.

    Args:
        inner: the layer of the tensors that the operation saw.
        views: role there -> what it is of parameters.
    """

    def __init__(self, inner: Layer, views: Mapping[str, Expression]) -> None:
        self.inner, self.views = inner, dict(views)
        self.kind, self.groups = inner.kind, inner.groups
        self.in_features, self.out_features = inner.in_features, inner.out_features
        self.rowwise = inner.rowwise
        self.place = next((view.place for view in views.values()), None)
        self._roles = {
            (role, name): _role(role, name, view) for role, view in views.items() for name in view.parameters
        }
        self.parameters = {
            self._roles[role, name]: p for role, view in views.items() for name, p in view.parameters.items()
        }
        self.by_rows = inner.by_rows and all(view.form is Form.PARAMETER for view in views.values())
        self.view_key: tuple[Hashable, ...] = tuple(
            () if view.form is Form.PARAMETER else view.key for view in views.values()
        )

    @property
    def biased(self) -> bool:
        """Whether W̄ has a bias column."""
        return self.inner.biased

    @property
    def whole(self) -> bool:
        """Whether every entry of the parameters is in W̄ once."""
        return all(view.form <= Form.REARRANGED for view in self.views.values())

    @property
    def of_all(self) -> bool:
        """Whether nothing is taken from the parameters in part."""
        return not any(view.taken or view.place is not None for view in self.views.values())

    @property
    def partial(self) -> bool:
        """Whether W̄ is a part of its parameters, entry by entry."""
        return any(view.form is Form.PART for view in self.views.values()) and all(
            view.form <= Form.PART for view in self.views.values()
        )

    def part_of(self, role: str) -> int:
        """How many entries of a parameter are seen."""
        for inner, view in self.views.items():
            if role in (self._roles[inner, name] for name in view.parameters):
                own = self.parameters[role].numel()
                return min(own, self.inner.parameters[inner].numel())
        raise KeyError(role)

    def prepare(self, *args: Any, **kwargs: Any) -> Tensor:
        """The input of the operation."""
        return self.inner.prepare(*args, **kwargs)

    def features(self, x: Tensor) -> Float[Tensor, "g n s i"]:
        """Rows of the inner layer."""
        return self.inner.features(x)

    def outputs(self, y: Tensor) -> Float[Tensor, "g n s o"]:
        """Rows of the inner layer."""
        return self.inner.outputs(y)

    def second_moment(self, x: Tensor, dtype: torch.dtype) -> Moments:
        """The inner layer's."""
        return self.inner.second_moment(x, dtype)

    def output_gradient_moment(self, g: Tensor, dtype: torch.dtype) -> Float[Tensor, "g o o"]:
        """The inner layer's."""
        return self.inner.output_gradient_moment(g, dtype)

    def matrix(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g o j"]:
        """W̄ with the linear part of f in it."""
        found = {
            role: view.linear({name: tensors[self._roles[role, name]] for name in view.parameters})
            for role, view in self.views.items()
            if all(self._roles[role, name] in tensors for name in view.parameters)
        }
        return self.inner.matrix(found)

    def split(self, matrix: Float[Tensor, "*n g o j"]) -> dict[str, Tensor]:
        """The transpose of `matrix`."""
        found: dict[str, Tensor] = {}
        for role, part in self.inner.split(matrix).items():
            for name, tensor in self.views[role].adjoint(part).items():
                own = self._roles[role, name]
                found[own] = found[own] + tensor if own in found else tensor
        return found

    def modes(self, role: str) -> tuple[int, ...]:
        """The inner layer's where the parameter itself is what it sees, else its shape."""
        for inner, view in self.views.items():
            if view.form is Form.PARAMETER and role in (self._roles[inner, name] for name in view.parameters):
                return self.inner.modes(inner)
        return super().modes(role)


def _role(role: str, name: str, view: Expression) -> str:
    """ "weight" for the only parameter of a weight; "bias" stays what it is only where the bias is the parameter."""
    if view.form is Form.PARAMETER:
        return role
    if role == "weight" and len(view.parameters) == 1:
        return role
    return f"{role} {name}"
