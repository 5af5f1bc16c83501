"""Weights stored in parts (weight norm, spectral norm, masks, low-rank updates, scaled integers), rebuilt when read.

A finder looks at names and shapes and yields a `Fold` for each weight it can rebuild without guessing. The result
appears in the checkpoint's tensors beside its parts, under the name that the plain weight would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.formats.dtypes import TensorSpec

Specs = Mapping[str, TensorSpec]


@dataclass(frozen=True)
class Fold:
    """One weight that is stored in parts.

    Attributes:
        layer, role: where it belongs, as `names.split` would say of a plain weight.
        spec: shape and type of the result.
        sources: names of the parts, in the order that `compute` takes them.
        compute: parts -> weight.
        evidence: half a sentence: what was put together from what.
    """

    layer: str
    role: str
    spec: TensorSpec
    sources: tuple[str, ...]
    compute: Callable[..., Tensor]
    evidence: str

    def name_in(self, specs: Specs) -> str:
        """The plain weight's name, or with `.folded` behind it where a stored tensor already has that name."""
        plain = f"{self.layer}.{self.role}" if self.layer else self.role
        return f"{plain}.folded" if plain in specs else plain


# (specs, tensors) -> folds; tensors are read only where a convention shows in values alone.
Finder = Callable[[Specs, Mapping[str, Tensor]], Iterator[Fold]]


def working(tensor: Tensor) -> Tensor:
    """The tensor in float32, or float64 if it is stored so: sums over half-precision numbers lose what they measure."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def working_spec(spec: TensorSpec, shape: tuple[int, ...] | None = None) -> TensorSpec:
    """Shape and type of what `working` makes of a tensor."""
    return TensorSpec(spec.shape if shape is None else shape, "float64" if spec.dtype == "float64" else "float32")
