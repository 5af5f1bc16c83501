"""Call and Sample: the inputs and output gradients of one block in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from curvlab.errors import CurvlabError, UnsupportedLayer
from curvlab.layers.layer import Layer, Moments
from curvlab.layers.viewed import ViewedLayer
from curvlab.shapes import Float


@dataclass
class Call:
    """One application of a layer: its prepared input x, and later the gradient g of the summed loss at its output.

    `axis` is the axis of the examples in x and g (1 where a network runs sequence-first); `rows` is N·T of this call;
    `mask` `(n, t)` is true at the `kept` positions that count, None where all do;
    `places` says where rows that were gathered in any order have been put (`gathered.Places`); `watched` is true of one
    that hooks on modules alone would not have recorded;
    `version` is x's when it was recorded, to notice a network that overwrites it afterwards. x is None once it
    is not needed any more.
    """

    layer: Layer
    x: Tensor | None
    axis: int = 0
    rows: int = 0
    version: int = 0
    g: Tensor | None = None
    mask: Tensor | None = None
    kept: int | None = None
    places: Any = None
    watched: bool = False

    @property
    def counted(self) -> int:
        """Rows that count."""
        if self.mask is None:
            return self.rows
        return int(self.mask.sum()) if self.kept is None else self.kept

    def check(self) -> None:
        """Raise if the model has changed x in place since: what it saw is lost."""
        if self.x is not None and self.x._version != self.version:
            raise CurvlabError(
                f"the input of a {self.layer.kind} layer was overwritten by the model after the layer had used it",
                "its features are gone",
                "use an out-of-place operation there",
            )


class Sample:
    """The calls of one block in one batch, taken as one map with all their positions side by side.

    A module that runs several times, and modules that share all their parameters, are one affine map at more
    positions: their per-example gradient is Σ over calls and positions of g āᵀ, exactly.

    Args:
        calls: in the order they ran.
        examples: N, the number of examples of the batch.
        dtype: floating-point type of the products made from this sample.
    """

    def __init__(self, calls: Sequence[Call], examples: int, dtype: torch.dtype) -> None:
        self.calls, self.examples, self.dtype = calls, examples, dtype

    @property
    def layer(self) -> Layer:
        """The layer of the block (of its first call)."""
        return self.calls[0].layer

    @cached_property
    def features(self) -> Float[Tensor, "g n s i"]:
        """All rows a[g,n,t], in this sample's dtype, without the 1 of the bias."""
        return self._join(
            [_kept(c, c.layer.features(_examples_first(c.x, c.axis))) for c in self.calls if c.x is not None]
        )

    @cached_property
    def output_gradients(self) -> Float[Tensor, "g n s o"]:
        """All rows g[g,n,t] = ∂ℓ_n/∂s[n,t]; zeros where no gradient came back."""
        return self._join([c.layer.outputs(_examples_first(c.g, c.axis)) for c in self.calls if c.g is not None])

    @cached_property
    def positions(self) -> int:
        """T: positions per example, over all calls."""
        return sum(c.rows for c in self.calls) // self.examples

    @cached_property
    def mask(self) -> Tensor | None:
        """True at the positions `(n, t)` that count; None where all do."""
        masks = [c.mask for c in self.calls if c.mask is not None]
        if not masks:
            return None
        shape = (self.examples, -1)
        return torch.cat(
            [masks[0].new_ones(c.rows).reshape(shape) if c.mask is None else c.mask for c in self.calls], 1
        )

    @property
    def rows(self) -> int:
        """Rows that count: N·T, less those that are masked."""
        return sum(c.counted for c in self.calls)

    def counted(self, rows: Float[Tensor, "g n s d"]) -> Float[Tensor, "g r d"]:
        """Features or output gradients of the positions that count, one after another."""
        flat = rows.flatten(1, 2)
        return flat if self.mask is None else flat[:, self.mask.flatten()]

    def mean_features(self) -> Float[Tensor, "g n i"]:
        """ã[g,n]: the mean of a over the positions of an example that count."""
        if self.mask is None:
            return self.features.mean(2)
        return self.features.sum(2) / self.mask.sum(1).clamp(min=1)[:, None].to(self.dtype)

    def feature_moments(self) -> Moments:
        """Σ a, Σ aaᵀ over all calls, by each layer's cheapest method."""
        calls = [(c.layer, c.x if c.mask is None else c.x[c.mask]) for c in self.calls if c.x is not None]
        moments = [layer.second_moment(x, self.dtype) for layer, x in _joined(calls)]
        if len(moments) == 1:
            return moments[0]
        total, second = (torch.stack(part).sum(0) for part in zip(*((m.total, m.second) for m in moments), strict=True))
        return Moments(total, second, sum(m.rows for m in moments))

    @cached_property
    def output_gradient_moment(self) -> Float[Tensor, "g o o"]:
        """Σ ggᵀ over all calls."""
        calls = [(c.layer, c.g) for c in self.calls if c.g is not None]
        moments = [layer.output_gradient_moment(g, self.dtype) for layer, g in _joined(calls)]
        return moments[0] if len(moments) == 1 else torch.stack(moments).sum(0)

    def of_part(self) -> Sample:
        """The same calls, of the layer whose weight is the part of a parameter that this one sees."""
        calls = [replace(c, layer=c.layer.inner) if isinstance(c.layer, ViewedLayer) else c for c in self.calls]
        return Sample(calls, self.examples, self.dtype)

    def copy(self) -> Sample:
        """The same calls, without what has been made from them."""
        return Sample(self.calls, self.examples, self.dtype)

    def unpadded_calls(self) -> list[Call]:
        """The calls, their inputs without positions that do not count: rows `(r, ...)` in place of `(n, t, ...)`.

        Enough for sums over rows; which example a row belongs to is lost.
        """
        return [c if c.mask is None or c.x is None else Call(c.layer, c.x[c.mask], rows=c.counted) for c in self.calls]

    def half(self, first: int) -> Sample:
        """Every second example, starting with `first`: the split for standard errors."""
        count = len(range(first, self.examples, 2))
        return Sample([_half(call, first, self.examples) for call in self.calls], count, self.dtype)

    def _join(self, parts: list[Tensor]) -> Tensor:
        rows = [_by_example(part, self.examples, self.layer.kind).to(self.dtype) for part in parts]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=2)


def _kept(call: Call, rows: Float[Tensor, "g n s d"]) -> Float[Tensor, "g n s d"]:
    """Rows with zeros where a position does not count."""
    return rows if call.mask is None else rows * call.mask[None, :, :, None].to(rows.dtype)


def per_example_gradients(
    layer: Layer, features: Float[Tensor, "g n s i"], output_gradients: Float[Tensor, "g n s o"]
) -> Float[Tensor, "n g o j"]:
    """DW_n = Σ_t g[n,t] ā[n,t]ᵀ with the bias column Σ_t g[n,t] appended: docs/curvature.md."""
    weight = torch.einsum("gnso,gnsi->ngoi", output_gradients, features)
    if not layer.biased:
        return weight
    return torch.cat([weight, output_gradients.sum(2).transpose(0, 1)[..., None]], dim=3)


def example_axis(shape: Sequence[int], examples: int, kind: str, usual: int | None = None) -> int:
    """The axis of x that holds the examples: the first, or the second in sequence-first networks.

    `usual` is the axis that was seen in the first look, which every other batch obeys: one of as many examples as time
    steps, or as positions of a window, could not tell. None: this is the first look.

    Raises:
        UnsupportedLayer: no axis has the batch's length, and the first is no multiple of it.
    """
    if usual == 1 and len(shape) > 2 and shape[1] == examples:
        return 1
    if usual != 1 and shape and shape[0] == examples:
        return 0
    if usual is None and len(shape) > 2 and shape[1] == examples:
        return 1
    if usual != 1 and shape and shape[0] % examples == 0 and shape[0] > 0:
        return 0
    raise UnsupportedLayer(
        f"{kind} saw an input of shape {tuple(shape)} in a batch of {examples} examples",
        "it has no axis of examples, so per-example statistics do not exist for it",
    )


def _joined(calls: list[tuple[Layer, Tensor]]) -> list[tuple[Layer, Tensor]]:
    """Calls of one layer with tensors of one shape as one call with a longer batch: their order plays no part in a
    sum."""
    groups: dict[tuple[int, torch.Size], list[tuple[Layer, Tensor]]] = {}
    for layer, tensor in calls:
        groups.setdefault((id(layer), tensor.shape[1:]), []).append((layer, tensor))
    return [(own[0][0], own[0][1] if len(own) == 1 else torch.cat([t for _, t in own])) for own in groups.values()]


def _examples_first(x: Tensor, axis: int) -> Tensor:
    return x if axis == 0 else x.transpose(0, axis)


def _by_example(rows: Float[Tensor, "g m s d"], examples: int, kind: str) -> Float[Tensor, "g n t d"]:
    groups, count, positions, width = rows.shape
    if count == examples:
        return rows
    # Positions folded into the batch axis, examples first: (n·k, s) is (n, k·s).
    example_axis((count,), examples, kind)
    return rows.reshape(groups, examples, count // examples * positions, width)


def _half(call: Call, first: int, examples: int) -> Call:
    def pick(t: Tensor | None) -> Tensor | None:
        if t is None:
            return None
        if t.shape[call.axis] == examples:
            return t[first::2] if call.axis == 0 else t[:, first::2]
        return t.reshape(examples, -1, *t.shape[1:])[first::2].flatten(0, 1)

    rows = call.rows // examples * len(range(first, examples, 2))
    mask = None if call.mask is None else call.mask[first::2]
    kept = None if mask is None else int(mask.sum())
    return Call(call.layer, pick(call.x), call.axis, rows, g=pick(call.g), mask=mask, kept=kept)
