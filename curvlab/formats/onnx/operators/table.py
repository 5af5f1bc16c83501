"""The operator table: name and opset range → a torch function of the inputs, with the attributes as keywords.

    @operator("LeakyRelu")
    def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor: ...

is a whole entry: the signature holds the attributes and their defaults, and an attribute it does not name is refused.
Functions are differentiable wherever the operator is. An entry may ask for the number of outputs the graph wants, by a
keyword `outputs`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from torch import Tensor

from curvlab.errors import CurvlabError
from curvlab.quoting import escaped

Result = Tensor | Sequence[Tensor | None]
Function = Callable[..., Result]
Entered = TypeVar("Entered", bound=Function)

# Attributes that say nothing about the result: where memory may be reused, and how exactly a sum is to be kept.
_WITHOUT_EFFECT = frozenset({"consumed_inputs", "stash_type"})
_FAMILIES = (
    "activations attention casts convolution elementwise generators geometry grids indexing logic losses matrix"
    " normalisation pooling recurrent reductions resize scatter shapes signal unsupported"
)


class UnsupportedOperator(CurvlabError):  # noqa: N818 - it becomes the reason why a file is read for its weights only
    """A node that the table has no function for, or that asks for something its function does not do."""


@dataclass(frozen=True)
class Operator:
    """One entry: `function` holds for the opsets since ≤ opset < before."""

    name: str
    since: int
    before: int | None
    function: Function
    attributes: frozenset[str]
    counts_outputs: bool

    def __call__(self, inputs: Sequence[Tensor | None], attributes: Mapping[str, Any], outputs: int) -> Result:
        """The outputs for these inputs (None is an input left out)."""
        known = {key: value for key, value in attributes.items() if key not in _WITHOUT_EFFECT}
        unknown = known.keys() - self.attributes
        if unknown:
            raise UnsupportedOperator(
                f"operator {self.name} with the attribute {sorted(unknown)[0]!r}", "not supported"
            )
        return self.function(*inputs, **known, **({"outputs": outputs} if self.counts_outputs else {}))


_OPERATORS: dict[str, list[Operator]] = {}
_REFUSED: dict[str, str] = {}


def operator(*names: str, since: int = 1, before: int | None = None) -> Callable[[Entered], Entered]:
    """Enter a function into the table under these names, for the opsets since ≤ opset < before."""

    def enter(function: Entered) -> Entered:
        parameters = inspect.signature(function).parameters.values()
        keywords = frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        counts = "outputs" in keywords
        for name in names:
            entry = Operator(name, since, before, function, keywords - {"outputs"}, counts)
            _OPERATORS.setdefault(name, []).append(entry)
        return function

    return enter


def refuse(reason: str, *names: str) -> None:
    """Enter names that have no function on purpose, and why."""
    _REFUSED.update(dict.fromkeys(names, reason))


def find_operator(name: str, domain: str, opset: int) -> Operator:
    """The entry for an operator at an opset of its domain.

    Raises:
        UnsupportedOperator: none; the reason is one clause for a note.
    """
    table = operators()
    if domain not in ("", "ai.onnx"):
        said = f"operator {escaped(name)} of the domain {escaped(domain)}"
        raise UnsupportedOperator(said, "only ONNX's own operators are supported")
    for entry in table.get(name, ()):
        if entry.since <= opset and (entry.before is None or opset < entry.before):
            return entry
    why = _REFUSED.get(name, "not in curvlab's table" if name not in table else f"not in the form of opset {opset}")
    raise UnsupportedOperator(f"operator {escaped(name)}", why)


@cache
def operators() -> Mapping[str, list[Operator]]:
    """The whole table; the families register when they are imported."""
    for family in _FAMILIES.split():
        importlib.import_module(f"curvlab.formats.onnx.operators.{family}")
    return _OPERATORS


def refused_operators() -> Mapping[str, str]:
    """Operators left out on purpose -> why."""
    operators()
    return _REFUSED


def integers(tensor: Tensor) -> list[int]:
    """The entries of a tensor that holds sizes, axes or positions."""
    return [int(value) for value in tensor.reshape(-1).tolist()]


def number(tensor: Tensor) -> float:
    """The value of a tensor that holds one number."""
    return float(tensor.reshape(-1)[0])


def axis_of(axis: int, ndim: int) -> int:
    """`axis` counted from the front."""
    return axis + ndim if axis < 0 else axis
