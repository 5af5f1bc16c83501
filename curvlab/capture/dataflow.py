"""Dataflow: which tensors of a forward pass hold the examples, which come from parameters alone, and which are
constants."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
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
        """Let go of everything."""
        self._marks = {}

    def put(self, tensor: Tensor, mark: Mark) -> None:
        """Mark a tensor."""
        if id(tensor) not in self._own:
            self._marks[id(tensor)] = weakref.ref(tensor), mark

    def get(self, tensor: Tensor) -> Mark | None:
        """The mark of a tensor; None for one that comes from where this does not look."""
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

    def carry(self, name: str, output: Any, arguments: Any) -> None:
        """Mark what an operation returns; none of its arguments comes from parameters alone."""
        tensors = list(tensors_in(arguments))
        mark: Mark = EXAMPLES if any(self.varies(one) for one in tensors) else CONSTANT
        gathered = self._gathered(name, arguments) if mark is EXAMPLES else None
        held = gathered or next((rows for one in tensors if (rows := self._held(one)) is not None), None)
        for one in tensors_in(output):
            if held is not None and held.index.numel() in one.shape[: 2 if one.shape[:1] == (1,) else 1]:
                self.put(one, held)
            else:
                self.put(one, mark)
        if name == "sort" and mark is EXAMPLES and output[1].ndim == 1:
            per = max(1, output[1].numel() // max(1, self.examples))
            held = next((rows for one in tensors if (rows := self.rows(one)) is not None), None)
            self.put(output[0], Rows(output[1], per) if held is None else Rows(held.index[output[1]], held.per))

    def _gathered(self, name: str, arguments: Any) -> Rows | None:
        """The rows that an operation takes from its first argument."""
        positional = arguments[0]
        source = positional[0] if positional and isinstance(positional[0], Tensor) else None
        if source is None or source.ndim < 1 or not self.varies(source):
            return None
        index = None
        if name == "__getitem__":
            index = positional[1]
            if isinstance(index, tuple):
                index = next((part for part in index if part is not None), None)
        elif name in ("index_select", "repeat_interleave") and len(positional) > 1:
            index = _index(name, positional, arguments[1], source)
        if not isinstance(index, Tensor) or index.ndim < 1:
            return None
        held = self.rows(source)
        per = held.per if held is not None else max(1, source.shape[0] // max(1, self.examples))
        if index.dtype == torch.bool:
            if index.ndim > 1:
                per *= index[0].numel()
                if held is not None:
                    return None
            index = index.flatten().nonzero().flatten()
        if index.ndim != 1:
            return None
        return Rows(index if held is None else held.index[index], per)


def _index(name: str, positional: Any, keywords: Mapping[str, Any], source: Tensor) -> Any:
    if name == "index_select":
        return positional[2] if len(positional) > 2 and positional[1] in (0, -source.ndim) else None
    dim = positional[2] if len(positional) > 2 else keywords.get("dim")
    if dim not in (0, -source.ndim):
        return None
    return torch.arange(source.shape[0], device=source.device).repeat_interleave(positional[1])


def tensors_in(part: Any) -> Iterator[Tensor]:
    """The tensors among arguments or outputs; those in lists and mappings too."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, tuple | list):
        for one in part:
            yield from tensors_in(one)
    elif isinstance(part, Mapping):
        for one in part.values():
            yield from tensors_in(one)
