"""Dataflow: which tensors of a forward pass hold the examples, which come from parameters alone, and which are
constants."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.layers.expression import Expression, ParameterExpression


@dataclass(frozen=True)
class Rows:
    """Which rows of the batch a tensor has along its first axis: row `index[i]` of N·`per` is its row i.

    A routed mixture of experts gathers rows in any order.
    """

    index: Tensor
    per: int


EXAMPLES, CONSTANT = "examples", "constant"
Mark = Rows | Expression | str
"""`EXAMPLES`: it depends on the examples, which are along an axis; `CONSTANT`: on nothing."""


class Dataflow:
    """The marks of the tensors of one forward pass, which do not keep the tensors.

    Args:
        parameters: name -> parameter, of the model.
        constants: its buffers.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], constants: Iterable[Tensor]) -> None:
        self._own = {id(p): ParameterExpression(name, p) for name, p in parameters}
        self._buffers = {id(b) for b in constants}
        self._marks: dict[int, tuple[weakref.ref[Tensor], Mark]] = {}
        self.examples = 0

    def begin(self, inputs: Iterable[Tensor], examples: int) -> None:
        """A forward pass of so many examples begins."""
        self._marks, self.examples = {}, examples
        for one in inputs:
            self.put(one, EXAMPLES)

    def end(self) -> None:
        """Forget all marks."""
        self._marks = {}

    def put(self, tensor: Tensor, mark: Mark) -> None:
        """Mark a tensor."""
        if id(tensor) not in self._own:
            self._marks[id(tensor)] = weakref.ref(tensor), mark

    def get(self, tensor: Tensor) -> Mark | None:
        """The mark of a tensor; None for one that no watched call has made."""
        own = self._own.get(id(tensor))
        if own is not None:
            return own
        found = self._marks.get(id(tensor))
        if found is not None and found[0]() is tensor:
            return found[1]
        return CONSTANT if id(tensor) in self._buffers else None

    def named(self, parameters: Iterable[Tensor]) -> dict[str, Tensor]:
        """The model's parameters among these, by name."""
        return {self._own[id(p)].name: p for p in parameters if id(p) in self._own}

    def is_made(self, tensor: Tensor) -> bool:
        """Whether a tensor is a constant that was made in this forward pass."""
        return id(tensor) not in self._buffers and self.get(tensor) is CONSTANT

    def expression(self, tensor: Any) -> Expression | None:
        """What a tensor is of parameters alone, None if it is not."""
        mark = self.get(tensor) if isinstance(tensor, Tensor) else None
        return mark if isinstance(mark, Expression) else None

    def varies(self, tensor: Any) -> bool:
        """Whether a tensor holds examples; one from elsewhere does if its first axis is as long as theirs."""
        if not isinstance(tensor, Tensor):
            return False
        mark = self.get(tensor)
        if tensor.ndim == 0 and not (tensor.is_floating_point() or tensor.is_complex()):
            return False  # the number of an expert, read from the data
        if mark is None:
            return tensor.ndim > 0 and tensor.shape[0] == self.examples
        return mark is EXAMPLES or isinstance(mark, Rows)

    def rows(self, tensor: Tensor) -> Rows | None:
        """Which rows of the batch a tensor has, where they are not all of them in order."""
        mark = self._held(tensor)
        return mark if mark is not None and tensor.ndim and tensor.shape[0] == mark.index.numel() else None

    def _held(self, tensor: Tensor) -> Rows | None:
        mark = self.get(tensor)
        return mark if isinstance(mark, Rows) else None

    def carry(self, name: str, output: Any, arguments: Any, tensors: list[Tensor] | None = None) -> None:
        """Mark what an operation returns; none of its arguments, with these `tensors` in them, comes from parameters
        alone."""
        tensors, made = tensors_in(arguments) if tensors is None else tensors, tensors_in(output)
        if not any(self.varies(one) for one in tensors):
            for one in made:
                self.put(one, CONSTANT)
            return
        held = self._rows_after(name, arguments, tensors)
        if name == "sort" and made[1].ndim == 1:
            order = made[1]
            held = _taken(held, order) if held is not None else Rows(order, self._per(order))
            made = made[:1]
        parts: list[Rows | None] = [held] * len(made)
        lengths = [one.shape[0] if one.ndim else 0 for one in made]
        if held is not None and len(made) > 1 and sum(lengths) == held.index.numel():  # cut along the rows
            parts = [Rows(index, held.per) for index in torch.split(held.index, lengths)]
        for one, rows in zip(made, parts, strict=True):
            fits = rows is not None and rows.index.numel() in one.shape[: 2 if one.shape[:1] == (1,) else 1]
            self.put(one, rows if rows is not None and fits else EXAMPLES)

    def _rows_after(self, name: str, arguments: Any, tensors: list[Tensor]) -> Rows | None:
        """The rows of what an operation returns, where they are not all of them in order."""
        if name in ("cat", "concat", "concatenate"):
            parts = [rows for one in tensors if (rows := self.rows(one)) is not None]
            if parts and len(parts) == len(tensors) and len({rows.per for rows in parts}) == 1:
                return Rows(torch.cat([rows.index for rows in parts]), parts[0].per)
        gathered = self._gathered(name, *arguments)
        return gathered or next((rows for one in tensors if (rows := self._held(one)) is not None), None)

    def _gathered(self, name: str, positional: Any, keywords: Mapping[str, Any]) -> Rows | None:
        """The rows that an operation takes from its first argument."""
        source = positional[0] if positional and isinstance(positional[0], Tensor) else None
        if source is None or source.ndim < 1 or not self.varies(source):
            return None
        held, index = self.rows(source), _index(name, positional, keywords, source)
        if isinstance(index, slice):
            return None if held is None else _taken(held, torch.arange(source.shape[0])[index])
        if not isinstance(index, Tensor) or index.ndim < 1:
            return None
        per = self._per(source)
        if index.dtype == torch.bool:
            if held is not None and index.ndim > 1:
                return None
            per *= index[0].numel()
            index = index.flatten().nonzero().flatten()
        if index.ndim != 1:
            return None
        return Rows(index, per) if held is None else _taken(held, index)

    def _per(self, source: Tensor) -> int:
        """Rows per example of a tensor that has all of them in order."""
        return max(1, source.shape[0] // max(1, self.examples))


def _taken(rows: Rows, index: Tensor) -> Rows:
    return Rows(rows.index[index.to(rows.index.device)], rows.per)


def _index(name: str, positional: Any, keywords: Mapping[str, Any], source: Tensor) -> Any:
    """What an operation indexes the first axis of its first argument with; None if it does not."""
    if name == "__getitem__":
        index = positional[1]
        return next((part for part in index if part is not None), None) if isinstance(index, tuple) else index
    dim = positional[2] if len(positional) > 2 else keywords.get("dim")
    if name == "index_select":
        return positional[2] if len(positional) > 2 and positional[1] in (0, -source.ndim) else None
    if name == "repeat_interleave" and dim in (0, -source.ndim):
        return torch.arange(source.shape[0], device=source.device).repeat_interleave(positional[1])
    return None


def tensors_in(part: Any) -> list[Tensor]:
    """The tensors among arguments or outputs; those in lists and mappings too."""
    found: list[Tensor] = []
    _collect(part, found)
    return found


_PLAIN = (int, float, bool, str, type(None), slice, torch.dtype, torch.device)


def _collect(part: Any, found: list[Tensor]) -> None:
    # Called for every argument of every operation: what is most frequent is asked for first.
    if isinstance(part, Tensor):
        found.append(part)
    elif isinstance(part, tuple | list):
        for one in part:
            _collect(one, found)
    elif not isinstance(part, _PLAIN) and isinstance(part, Mapping):
        for one in part.values():
            _collect(one, found)
