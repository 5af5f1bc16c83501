"""Experts that are stored as one tensor (experts × outputs × inputs), each a matrix of its own.

A tensor of three axes may as well be the kernel of a Conv1d. Four things tell: the name (`experts.gate_up_proj`), a
router beside it with a row for every expert, another stack of as many matrices beside it, and the number of experts in
a configuration. A name alone is believed; a name that only hints (`moe`, `block_sparse_moe.input_linear`) needs one of
the others, and so does no hint at all the configuration and the router.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from curvlab.formats.inference.layer_group import AGREED, SHAPE

SETTINGS = frozenset(
    {"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts", "n_experts"}
)
"""Keys of configurations that say how many experts a layer has."""
Shapes = Mapping[str, tuple[int, ...]]

KIND = "Experts"
"""What a stack is called as a layer; each of its experts is a Linear."""
_EXPERTS = frozenset({"expert", "experts", "exps"})
_HINTS = frozenset({"moe", "smoe", "switch"})
_ROUTERS = frozenset({"router", "gate", "wg", "switch", "gating"})
_CONVOLUTION = re.compile(r"(?:^|_)(?:convs?|convolution|dwconv)(?:\d?d?)(?:_|$)", re.IGNORECASE)
_UP = frozenset({"up", "gate", "w1", "w3", "w13", "v1", "input", "fc1", "wi"})
_DOWN = frozenset({"down", "w2", "output", "fc2", "wo"})


@dataclass(frozen=True)
class Stack:
    """The matrices of all experts in one tensor.

    Attributes:
        weight: name of the tensor (experts, outputs, inputs), or (experts, inputs, outputs).
        bias: name of their biases (experts, outputs), or None.
        shape: of the weight: experts first.
        transposed: each matrix is stored (inputs, outputs).
        confidence: as in `layer_group`.
        evidence: why it is a stack.
    """

    weight: str
    bias: str | None
    shape: tuple[int, ...]
    transposed: bool
    confidence: float
    evidence: str

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of its tensors, the weight first."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def expert(self, number: int) -> str:
        """The name of one expert's layer: `experts.gate_up_proj` → `experts.3.gate_up_proj`."""
        parts = _plain(self.weight).split(".")
        place = _after_experts(parts)
        return ".".join([*parts[:place], str(number), *parts[place:]])

    @property
    def name(self) -> str:
        """The layer's name as the file has it."""
        return _plain(self.weight)


def find_stacks(shapes: Shapes, counts: Collection[int] = ()) -> dict[str, Stack]:
    """Weight's name -> stack, for every tensor that holds the matrices of several experts.

    Args:
        shapes: of all floating-point tensors, by name.
        counts: numbers of experts that a configuration names; empty where there is none.
    """
    candidates = {name: shape for name, shape in shapes.items() if len(shape) == 3 and 0 not in shape}
    candidates = {name: shape for name, shape in candidates.items() if not _is_one_of_many(name)}
    if not candidates:
        return {}
    beside: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name, shape in candidates.items():
        beside[_scope(name), shape[0]].append(name)
    routers = _routers(shapes)
    found = {}
    for name, shape in candidates.items():
        router = next((r for scope in _scopes(name) for r in routers.get(scope, ()) if shapes[r][0] == shape[0]), None)
        reasons = list(_reasons(name, shape, counts, router, beside[_scope(name), shape[0]]))
        words = _words(name)
        named, hinted = bool(words & _EXPERTS), bool(words & _HINTS)
        if len(reasons) >= (0 if named else 1 if hinted else 2):
            bias = _bias(name, shape, shapes)
            found[name] = Stack(
                weight=name,
                bias=bias,
                shape=shape,
                transposed=_transposed(name, shape, shapes.get(bias or ""), shapes.get(router or "")),
                confidence=AGREED if reasons else SHAPE,
                evidence="; ".join([f"{shape[0]} matrices {shape[1:]} in one tensor", *(reasons or ["named so"])]),
            )
    return found


def _reasons(
    name: str, shape: tuple[int, ...], counts: Collection[int], router: str | None, together: list[str]
) -> Iterator[str]:
    """What agrees that the first axis counts experts."""
    if shape[0] in counts:
        yield f"the configuration has {shape[0]} experts"
    if router is not None:
        yield f"{router} has a row for each"
    if len(together) > 1:
        other = next(one for one in together if one != name)
        yield f"{other} has as many"


def _plain(name: str) -> str:
    return name.removesuffix(".weight").removesuffix("_weight")


def _words(name: str) -> set[str]:
    return {word for part in name.lower().split(".") for word in (part, *part.split("_"))}


def _after_experts(parts: list[str]) -> int:
    """The place behind the last part that says experts; of names without one, the end."""
    said = [place for place, part in enumerate(parts) if _EXPERTS & {part.lower(), *part.lower().split("_")}]
    return said[-1] + 1 if said else len(parts)


def _is_one_of_many(name: str) -> bool:
    """A convolution by its name, or a tensor of one expert that has a number already."""
    parts = _plain(name).split(".")
    place = _after_experts(parts)
    return any(_CONVOLUTION.search(part) for part in parts[-2:]) or any(part.isdecimal() for part in parts[place:])


def _scope(name: str) -> str:
    """Where the names of the other stacks of the same experts begin."""
    return _plain(name).rpartition(".")[0]


def _scopes(name: str) -> Iterator[str]:
    """The scopes in which a router of these experts would be: the stack's own, and the two around it."""
    scope = _scope(name)
    for _ in range(3):
        yield scope
        scope = scope.rpartition(".")[0]


def _routers(shapes: Shapes) -> dict[str, list[str]]:
    """Scope -> the matrices in it that are named as a router."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, shape in shapes.items():
        parts = _plain(name).split(".")
        if len(shape) == 2:
            for place in range(max(0, len(parts) - 2), len(parts)):
                if _ROUTERS & {parts[place].lower(), *parts[place].lower().split("_")} and "proj" not in parts[place]:
                    found[".".join(parts[:place])].append(name)
                    break
    return found


def _bias(name: str, shape: tuple[int, ...], shapes: Shapes) -> str | None:
    plain = _plain(name)
    names = (f"{plain}_bias", f"{plain}.bias")
    return next((b for b in names if shapes.get(b) in ((shape[0], shape[1]), (shape[0], shape[2]))), None)


def _transposed(
    name: str, shape: tuple[int, ...], bias: tuple[int, ...] | None, router: tuple[int, ...] | None
) -> bool:
    """By the bias, whose length is the outputs'; else by the router, whose columns are the inputs of the first matrix
    and the outputs of the last; else as torch's Linear stores it."""
    _, rows, columns = shape
    if rows == columns:
        return False
    if bias is not None:
        return bias[1] == columns
    words = _words(name.rpartition("experts")[2])
    if router is not None and words & (_UP | _DOWN):
        inputs = columns if words & _UP else rows
        other = rows if words & _UP else columns
        return router[1] == other != inputs
    return False
