"""The input of a map as a `Call`: rows gathered from the examples in any order are put back with their examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.capture.dataflow import Rows
from curvlab.capture.sample import Call, example_axis
from curvlab.errors import UnsupportedLayer
from curvlab.layers.layer import Layer
from curvlab.layers.operations.operation import itself


@dataclass(frozen=True)
class Places:
    """Where gathered rows belong: row i is position `slot[i]` of example `owner[i]`, of N·`width`.

    Attributes:
        owner: example of every row.
        slot: its position there.
        examples: N.
        width: the most rows that one example has.
        rows: which rows of the batch they are.
    """

    owner: Tensor
    slot: Tensor
    examples: int
    width: int
    rows: Rows

    @classmethod
    def of(cls, rows: Rows, examples: int) -> Places:
        """Rows keep their order within an example."""
        owner = torch.div(rows.index, rows.per, rounding_mode="floor")
        counts = torch.bincount(owner, minlength=examples)
        order = torch.argsort(owner, stable=True)
        before = torch.cumsum(counts, 0) - counts
        slot = torch.empty_like(owner)
        slot[order] = torch.arange(len(owner), device=owner.device) - before[owner[order]]
        return cls(owner, slot, examples, int(counts.max()), rows)

    def put(self, x: Tensor) -> Tensor:
        """(r, ...) as (n, width, ...), with zeros where an example has fewer rows."""
        placed = x.new_zeros(self.examples, self.width, *x.shape[1:])
        placed[self.owner, self.slot] = x
        return placed

    def mask(self, counted: Tensor | None = None) -> Tensor:
        """True at the places that hold a row, of those that count in the batch's mask `(n, t)`."""
        kept = torch.ones(len(self.owner), dtype=torch.bool, device=self.owner.device)
        if counted is not None and counted.numel() == self.examples * self.rows.per:
            kept = counted.flatten()[self.rows.index]
        return self.put(kept)


def recorded_call(
    layer: Layer, x: Tensor, y: Tensor, examples: int, rows: Rows | None = None, usual: int | None = None
) -> tuple[Call, Callable[[Tensor], Tensor]]:
    """The call of a layer, and what arranges its output and the gradient there in the same way.

    Args:
        layer: the map.
        x: its prepared input.
        y: its output.
        examples: N.
        rows: which rows of the batch x has, where they are not all of them in order.
        usual: the axis of the examples seen in the first look; None in that.

    Raises:
        UnsupportedLayer: x has no axis of examples.
    """
    x = x.detach()
    total = y.numel() // (layer.groups * layer.out_features)
    if rows is not None:
        if not layer.rowwise:
            why = "its features are not the last axis of its input"
            raise UnsupportedLayer(f"{layer.kind} saw rows of some of the examples", why)
        places = Places.of(rows, examples)
        x, count = places.put(x), len(places.owner)
        rows_in_all = examples * places.width
        return Call(layer, x, 0, rows_in_all, x._version, mask=places.mask(), kept=count, places=places), places.put
    axis = example_axis(x.shape, examples, layer.kind, usual)
    if layer.rowwise and axis == 0 and x.shape[0] != examples:
        # Positions folded into the batch axis, examples first.
        count = x.shape[0] // examples

        def unfolded(t: Tensor) -> Tensor:
            return t.reshape(examples, count, *t.shape[1:])

        x = unfolded(x)
        return Call(layer, x, 0, total, x._version), unfolded
    return Call(layer, x, axis, total, x._version), itself
