"""LayerShape: which layer a set of factors is of, and `StoredLayer`, that layer without a network behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from curvlab.errors import UnsupportedLayer
from curvlab.factor_files.statistics import GRADIENT_FACTOR, INPUT_FACTOR, SECOND_MOMENT
from curvlab.layers.layer import Layer
from curvlab.shapes import Float


@dataclass(frozen=True)
class LayerShape:
    """The affine map s[g] = W̄_g ā[g] that factors are of.

    Attributes:
        name: of the layer.
        kind: what it is ("Linear", "Conv2d", ...).
        groups: number of independent maps g.
        out_features: outputs of one group, o.
        in_features: inputs of one group, i, without the bias's 1.
        parameters: role -> the parameter's name in the model.
        shapes: role -> its shape.
        by_rows: whether the weight is stored as W̄'s rows, (out, in, …).
    """

    name: str
    kind: str
    groups: int
    out_features: int
    in_features: int
    parameters: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    by_rows: bool = True

    @property
    def biased(self) -> bool:
        """Whether W̄ has a bias column."""
        return "bias" in self.parameters

    @property
    def widths(self) -> Mapping[str, int]:
        """Sizes of the matrices by their names in a file."""
        features = {SECOND_MOMENT: self.in_features, INPUT_FACTOR: self.in_features + self.biased}
        return {**features, GRADIENT_FACTOR: self.out_features}

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(prod(shape) for shape in self.shapes.values())


class StoredLayer(Layer):
    """A layer that only its shape is known of: enough to read its factors, not to run it."""

    def __init__(self, shape: LayerShape) -> None:
        self.kind, self.groups, self.by_rows = shape.kind, shape.groups, shape.by_rows
        self.out_features, self.in_features = shape.out_features, shape.in_features
        # Zeros of one number's memory: nothing is allocated for what a file says.
        self.parameters = {role: torch.zeros(()).expand(size) for role, size in shape.shapes.items()}

    def features(self, x: Tensor) -> Float[Tensor, "g n s i"]:
        """Not known."""
        raise self._not_here()

    def outputs(self, y: Tensor) -> Float[Tensor, "g n s o"]:
        """Not known."""
        raise self._not_here()

    def matrix(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g o j"]:
        """Not known."""
        raise self._not_here()

    def split(self, matrix: Float[Tensor, "*n g o j"]) -> dict[str, Tensor]:
        """Not known."""
        raise self._not_here()

    def _not_here(self) -> UnsupportedLayer:
        return UnsupportedLayer(f"a {self.kind} layer of a factor file was run", "only its factors are known")


def shape_of(name: str, layer: Layer, parameters: Mapping[str, str]) -> LayerShape:
    """What a file says of a layer that ran; `parameters` are their names by role."""
    return LayerShape(
        name=name,
        kind=layer.kind,
        groups=layer.groups,
        out_features=layer.out_features,
        in_features=layer.in_features,
        parameters=dict(parameters),
        shapes={role: tuple(layer.parameters[role].shape) for role in parameters},
        by_rows=layer.by_rows,
    )
