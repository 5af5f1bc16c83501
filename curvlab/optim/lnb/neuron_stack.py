"""One tensor `[k, h, w]` for the matrices W̄ of several neurons, so that an operation on all of them is one call.

A neuron's outputs stand at the top of its slots, its features end where the column of biases begins, and the rest is
zero; neurons that share M stand below each other. One without a bias, beside others, is one whose bias, the bias's
gradient and its row of M are zero: a solver makes nothing else of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import State
from curvlab.layers.layer import Moments
from curvlab.optim.lnb.neuron_metric import NeuronMetric
from curvlab.optim.lnb.neurons import Seen
from curvlab.shapes import Float

Slot = Sequence[PreconditionerBlock]
"""Neurons that share M; one that has groups is alone."""

Where = tuple[tuple[int, ...], tuple[int, ...], int]
"""Size, stride and offset of a view."""

# Entries of padding that cost less than the operations on one more stack.
PADDING = 2**14
# Entries whose copy costs more than that: such a neuron is a stack by itself.
LARGE = 2**16


class NeuronStack:
    """Where everything of some neurons lies in the tensors of a stack.

    Args:
        slots: the neurons.

    Attributes:
        shape: `(k, h, w)`.
        biased: whether the last column is of biases.
        names: of all parameters.
        moments: averages μ and χ of every feature, `[2, k, i]`; μ is zero for a neuron without a bias.
        metric: M of the last step's batches; None where they did not reach the neuron, or only its χ is of use.
    """

    moments: Tensor
    metric: NeuronMetric | None = None
    _sums: Moments | None = None

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots, self.shape = slots, _shape(slots)
        self.biased = any(_biased(slot) for slot in slots)
        self.names = {name for slot in slots for unit in slot for name in unit.parameters.values()}
        count, _, width = self.shape
        self._parameters: dict[str, Where] = {}
        self._copied: list[tuple[PreconditionerBlock, Where]] = []
        self._features: list[Where] = []
        self._metrics: list[Where] = []
        start, end = 0, width - self.biased
        whole, means, metrics = (
            torch.empty(size, device="meta") for size in (self.shape, (count, end), (count, width, width))
        )
        for slot in slots:
            rows = slice(start, start := start + slot[0].shape[0])
            columns = slice(end - _features(slot), end + _biased(slot))
            top = 0
            for unit in slot:
                self._place(unit, whole[rows, top : (top := top + unit.shape[1]), columns])
            self._features.append(_where(means[rows, columns.start :]))
            self._metrics.append(_where(metrics[rows, columns, columns]))

    def _place(self, unit: PreconditionerBlock, part: Tensor) -> None:
        views = unit.take_apart(part, {})
        if all(view._base is part._base for view in views.values()):
            self._parameters.update({name: _where(view) for name, view in views.items()})
        else:  # no view rearranges that much
            self._copied.append((unit, _where(part)))

    def joined(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Float[Tensor, "k h w"]:
        """W̄ of all neurons from tensors by parameter name; what has none is zero."""
        out = next(iter(tensors.values())).new_zeros(self.shape, dtype=dtype)
        known = [name for name in self._parameters if name in tensors]
        _fill(out, [self._parameters[name] for name in known], [tensors[name] for name in known])
        for unit, where in self._copied:
            if tensors.keys() >= set(unit.parameters.values()):
                out.as_strided(*where).copy_(unit.assemble(tensors))
        return out

    def parted(self, stack: Float[Tensor, "k h w"]) -> dict[str, Tensor]:
        """The inverse of `joined`: by parameter name, mostly views."""
        parts = {name: stack.as_strided(*where) for name, where in self._parameters.items()}
        for unit, where in self._copied:
            parts.update(unit.take_apart(stack.as_strided(*where), {}))
        return parts

    def begin(self, averages: Mapping[str, State], zero: Tensor) -> dict[str, State]:
        """Take over the averages of its neurons, and return the parts of `moments` where they are kept from now on.

        Args:
            averages: neuron -> μ ("mean") and χ ("square"), of those that have been measured.
            zero: of the type and on the device of the averages.
        """
        count, _, width = self.shape
        self.moments = zero.new_zeros(2, count, width - self.biased)
        kept: dict[str, State] = {}
        for slot, (size, stride, offset) in zip(self.slots, self._features, strict=True):
            own = {"square": self.moments.as_strided(size, stride, offset + self.moments[0].numel())}
            if _biased(slot):
                own["mean"] = self.moments.as_strided(size, stride, offset)
            for key, part in own.items():
                if slot[0].name in averages:
                    part.copy_(averages[slot[0].name][key])
            kept.update({unit.name: own for unit in slot})
        return kept

    def look(self, seen: Mapping[str, Seen]) -> None:
        """Take the metrics of a step."""
        shown = [seen[slot[0].name] for slot in self.slots if slot[0].name in seen]
        self._sums = shown[0].sums if shown else None
        self.metric = shown[0].metric if shown else None
        if self.metric is not None and len(shown) > 1:
            seconds = [one.metric.second for one in shown if one.metric is not None and one.metric.second is not None]
            count, _, width = self.shape
            out = seconds[0].new_zeros(count, width, width)
            _fill(out, self._metrics, seconds)
            rows = out.new_tensor(self._each([one.sums.rows for one in shown]))
            self.metric = replace(self.metric, rows=1, second=out.div_(rows[:, None, None]))

    def average(self, shares: Sequence[float]) -> None:
        """x̂ ← x̂ + w(x − x̂) for μ and χ of the neurons in the batch; features whose χ is not finite keep what they
        had.

        The device is not asked: what it does not say cannot be counted.

        Args:
            shares: w of every slot.
        """
        if self._sums is None:
            return
        if len(self.slots) > 1 and self.metric is not None and self.metric.second is not None:
            square = self.metric.second.diagonal(dim1=1, dim2=2)[:, : self.moments.shape[2]]
            mean = self.metric.second[:, -1, :-1] if self.biased else torch.zeros_like(square)
            new = torch.stack([mean, square])
        else:
            new = torch.stack([self._sums.total, self._sums.second]).div_(self._sums.rows).to(self.moments.dtype)
        share: float | Tensor = shares[0]
        if len(set(shares)) > 1:
            share = new.new_tensor(self._each(shares))[:, None]
        # A mean is finite where that of the squares is.
        self.moments.lerp_(torch.where(new[1] < torch.inf, new, self.moments), share)

    def _each(self, numbers: Sequence[float]) -> list[float]:
        """A number of every slot, for all its matrices."""
        return [number for number, slot in zip(numbers, self.slots, strict=True) for _ in range(slot[0].shape[0])]


def packed(slots: Iterable[Slot]) -> list[NeuronStack]:
    """Stacks of neurons of about one size: those join whose padding costs less than a stack of their own."""
    stacks: list[list[Slot]] = []
    alike: dict[tuple[int, ...], list[Slot]] = {}
    for slot in slots:
        if _entries([slot]) > LARGE:
            stacks.append([slot])
        else:
            alike.setdefault(_shape([slot]), []).append(slot)
    small = list(alike.values())
    while len(small) > 1:
        costs = {
            (i, j): _entries([*small[i], *small[j]]) - _entries(small[i]) - _entries(small[j])
            for i, j in combinations(range(len(small)), 2)
        }
        i, j = min(costs, key=lambda pair: costs[pair])
        if costs[i, j] > PADDING:
            break
        small[i] = [*small[i], *small.pop(j)]
    return [NeuronStack(members) for members in (*stacks, *small)]


def _shape(slots: Sequence[Slot]) -> tuple[int, int, int]:
    biased = any(_biased(slot) for slot in slots)
    return (
        sum(slot[0].shape[0] for slot in slots),
        max(sum(unit.shape[1] for unit in slot) for slot in slots),
        max(_features(slot) for slot in slots) + biased,
    )


def _entries(slots: Sequence[Slot]) -> int:
    """How many numbers W̄ and M hold."""
    count, height, width = _shape(slots)
    return count * width * (height + width)


def _features(slot: Slot) -> int:
    return slot[0].shape[2] - _biased(slot)


def _biased(slot: Slot) -> bool:
    block = slot[0].block
    return block is not None and block.layer.biased


def _where(view: Tensor) -> Where:
    return tuple(view.shape), view.stride(), int(view.storage_offset())


def _fill(out: Tensor, places: Sequence[Where], tensors: Sequence[Tensor]) -> None:
    if places:
        torch._foreach_copy_([out.as_strided(*where) for where in places], list(tensors))
