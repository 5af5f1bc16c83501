"""Layer: one affine map s[g,n,t] = W̄_g ā[g,n,t], whatever module it hides in, and `adapt`, which finds it
(docs/curvature.md).

Every supported module becomes `[groups, examples, positions, features]`: g = 1 unless the map is grouped (convolution
groups, the gates of a recurrent cell, the channels of a norm's scale), n examples, t positions that share the
weights. ā is the input with a 1 appended when there is a bias; features are stored *without* that 1, which the
statistics add for free.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.errors import UnsupportedLayer
from curvlab.linalg.gram import upper_gram
from curvlab.shapes import Float


@dataclass(frozen=True)
class Moments:
    """Sums over rows a of features: Σ a `[g, i]`, Σ aaᵀ `[g, i, i]` (or its diagonal `[g, i]` where the rest is
    zero), and their number."""

    total: Tensor
    second: Tensor
    rows: int

    @property
    def diagonal(self) -> bool:
        """Whether `second` is only the diagonal (one-hot features have no other entries)."""
        return self.second.ndim == 2


class Layer(ABC):
    """s[g,n,t] = W̄_g ā[g,n,t]: the affine map of one module.

    Attributes:
        kind: the name a person knows it by ("Linear", "Conv2d", ...).
        parameters: role -> parameter, in the order `split` returns them ("weight" first, "bias" last when there is
            one).
        groups: number of independent maps g.
        in_features: features of one group, i, without the bias's 1.
        out_features: outputs of one group, o.
        by_rows: the weight is stored as W̄'s rows (out, in, ...), so that its modes can be read off W̄ without
            rearranging.
        biased: whether a 1 is appended to the features.
        rowwise: its features are the last axis of its input, so that rows can be gathered and put in any order.
        whole: every entry of its parameters is in W̄ once; not so for a part of a fused weight.
        view_key: what tells its W̄ from others of the same parameters.
        place: the entry of the parameters' first axis that it is of, such as an expert's.
        road: what is known of it that is less than of an affine map, and why; None for an affine map.
    """

    kind: str
    parameters: dict[str, Tensor]
    groups: int = 1
    in_features: int
    out_features: int
    by_rows: bool = True
    rowwise: bool = False
    view_key: tuple[Hashable, ...] = ()
    place: int | None = None
    road: str | None = None

    @property
    def whole(self) -> bool:
        """Whether every entry of the parameters is in W̄ once."""
        return True

    @property
    def biased(self) -> bool:
        """Whether W̄ has a bias column."""
        return "bias" in self.parameters

    @property
    def of_all(self) -> bool:
        """Whether W̄ depends on every entry of the parameters."""
        return True

    def prepare(self, *args: Any, **kwargs: Any) -> Tensor:
        """The tensor the affine map sees, from the module's arguments (norm layers normalise here, on the whole
        batch)."""
        x = args[0] if args else next(iter(kwargs.values()))
        if not isinstance(x, Tensor):
            raise UnsupportedLayer(f"{self.kind} was called with a {type(x).__name__}", "its input must be a tensor")
        return x

    @abstractmethod
    def features(self, x: Tensor) -> Float[Tensor, "g n s i"]:
        """Rows a[g,n,t] of the prepared input, without the 1 of the bias."""

    @abstractmethod
    def outputs(self, y: Tensor) -> Float[Tensor, "g n s o"]:
        """Rows s[g,n,t] of the module's output; also of a gradient of that shape."""

    @abstractmethod
    def matrix(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "g o j"]:
        """W̄ from tensors shaped like the parameters; j = i + 1 when biased."""

    @abstractmethod
    def split(self, matrix: Float[Tensor, "*n g o j"]) -> dict[str, Tensor]:
        """The inverse of `matrix`, for any number of leading axes."""

    def second_moment(self, x: Tensor, dtype: torch.dtype) -> Moments:
        """Σ a and Σ aaᵀ over all examples and positions; layers override it where the rows need not be formed."""
        rows = self.features(x).flatten(1, 2).to(dtype)
        return Moments(rows.sum(1), upper_gram(rows), rows.shape[1])

    def output_gradient_moment(self, g: Tensor, dtype: torch.dtype) -> Float[Tensor, "g o o"]:
        """Σ ggᵀ over all examples and positions; only its upper triangle is read."""
        return upper_gram(self.outputs(g).flatten(1, 2).to(dtype))

    def modes(self, role: str) -> tuple[int, ...]:
        """Shape of the parameter as a tensor with modes (Ren 2022, section 4.7.2): a convolution weight is (out, in,
        kh·kw)."""
        return tuple(self.parameters[role].shape) or (1,)


Tap = Callable[[str, Tensor, Tensor], Tensor]
"""`y = tap(name, x, y)`: an unrolled module shows the capture one application of its affine map `name`."""


class Unrolled(ABC):
    """A module whose affine maps are hidden inside one kernel (nn.LSTM): its forward, written out so that they can be
    seen.

    Attributes:
        layers: name of the map within the module ("ih_l0") -> Layer.
    """

    layers: dict[str, Layer]

    @abstractmethod
    def forward(self, tap: Tap, *args: Any, **kwargs: Any) -> Any:
        """What the module's own forward returns, computed with `y = tap(name, x, y)` around every affine map."""


PACKAGES: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((nn.RNNBase, nn.RNNCellBase), "curvlab-recurrent"),
    ((nn.MultiheadAttention,), "curvlab-attention"),
)
"""Types of torch whose adapters are in packages of their own."""


@singledispatch
def adapt(module: nn.Module) -> Layer | Unrolled:
    """The affine map of a module; plugins add types with `@adapt.register`.

    Raises:
        UnsupportedLayer: no adapter is registered for this type; it becomes a line of the coverage report.
    """
    package = next((f"the package {name}" for kinds, name in PACKAGES if isinstance(module, kinds)), None)
    raise UnsupportedLayer(
        f"no adapter for {type(module).__name__}",
        "its parameters are not part of a known affine map",
        f"the package {package} adds one"
        if package
        else "a plugin of the entry-point group curvlab.layers can add one",
    )


def adapted(module: nn.Module) -> bool:
    """Whether some adapter is registered for the type of `module`."""
    return adapt.dispatch(type(module)) is not adapt.dispatch(nn.Module)


def join_bias(weight: Float[Tensor, "g o i"], tensors: Mapping[str, Tensor]) -> Float[Tensor, "g o j"]:
    """W̄ = [W b]: the bias, if any, as one more column of each group."""
    if "bias" not in tensors:
        return weight
    return torch.cat([weight, tensors["bias"].reshape(weight.shape[0], weight.shape[1], 1)], dim=2)


def split_bias(matrix: Float[Tensor, "*n g o j"], layer: Layer) -> tuple[Tensor, dict[str, Tensor]]:
    """The inverse of `join_bias`: the weight columns, and {"bias": last column with the bias's shape} if there is
    one."""
    if not layer.biased:
        return matrix, {}
    bias = matrix[..., -1].reshape((*matrix.shape[:-3], *layer.parameters["bias"].shape))
    return matrix[..., :-1], {"bias": bias}


def named(**parameters: Tensor | None) -> dict[str, Tensor]:
    """The parameters that exist, by role."""
    return {role: p for role, p in parameters.items() if p is not None}
