"""Names a person can read for layers and weights: the file's own where they mean something, else their node's.

"encoder.0.weight" → layer "encoder.0"     "onnx::MatMul_123" of node "/encoder/fc1/MatMul" → layer "encoder.fc1"
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count

from torch import nn

# What exporters call values that had no name.
_NUMBERED = re.compile(
    r"(val|const|constant|tensor|_?v|expr|buffer|param|init(ializer)?|W|R|B|t|x|y)?_?\d*"
    r"|(graph|new_shape|const_fold_opt|pad_const|slice_axes|to_copy)_+\w*\d+|node_\w+_\d+",
    re.IGNORECASE,
)
# Last parts that say what was done and not who did it: operators in capitals, roles in any case; jax writes small.
_OPERATIONS = re.compile(
    r"(MatMul|Gemm|Conv([123]D)?|ConvTranspose|BiasAdd|ExpandDims|Transpose|Reshape|Squeeze|Unsqueeze|Cast|Gather|LSTM|GRU"
    r"|RNN|BatchNormalization|LayerNormalization|InstanceNormalization|GroupNormalization|PRelu|FusedBatchNormV3|AddV2|Mul"
    r"|ReadVariableOp|Addmm|[Rr]ead|transpose|reshape|squeeze|[Ee]insum|dot_general|conv_general_dilated|anon)"
)
_NUMBER = re.compile(r"(_*\d+)+$")
_ROLES = re.compile(
    r"(weights?|bias(es)?|kernel|w|b|gamma|beta|scale|embeddings?|(running_|moving_)?(mean|var|variance))(_+\d+)*",
    re.IGNORECASE,
)
_SIDE = re.compile(r"[._/](weight|bias)_[ih]h(_l\d+)?$")
_SUFFIX = re.compile(r"_(w|b|weight|bias|kernel)(_\d+)?$", re.IGNORECASE)
_MOST_PARTS, _LONGEST = 24, 100
_TAKEN = frozenset(dir(nn.Module())) | {"steps", "inputs", "outputs", "places"}


def parts_of(name: str) -> list[str]:
    """`"/encoder/fc1/MatMul"` → its parts; of joined names (TensorFlow's `;`, an inlined graph's) the last."""
    name = re.sub(r".*__Inline_\d+__", "", name.rsplit(";", 1)[-1]).removesuffix(":0")
    parts = [part.strip() for part in re.split(r"[/.]+|::", name)]
    kept = [part for part in parts if part and part != "_orig_mod"]  # torch.compile's own word
    while len(kept) > 1 and kept[0] == "module":  # DataParallel's
        kept = kept[1:]
    return [_safe(part) for part in kept][:_MOST_PARTS]


def _safe(part: str) -> str:
    cut = part[:_LONGEST]
    return f"{cut}_" if cut in _TAKEN else cut


def means_something(name: str) -> bool:
    """Whether a person chose the name, and not an exporter's counter."""
    parts = parts_of(name)
    return bool(parts) and not name.startswith("onnx::") and not _NUMBERED.fullmatch(parts[-1])


def layer_name(weight: str, node: str, operator: str) -> str:
    """The layer's dotted name, from its weight's name if that means something, else from its node's."""
    for name in (weight, node):
        if name == weight and not means_something(name):
            continue
        if operator in ("LSTM", "GRU", "RNN"):  # one layer has both sides
            name = _SIDE.sub("", name)
        parts = _doer(parts_of(_SUFFIX.sub("", name)))
        if parts and not (len(parts) == 1 and (_ROLES.fullmatch(parts[0]) or _is_operation(parts[0]))):
            return ".".join(parts)
    return operator.lower()


def _doer(parts: list[str]) -> list[str]:
    """Without the last parts that name an operation or a role; "Conv_0" is a layer's name, unless it comes last."""
    if len(parts) > 1 and _is_operation(parts[-1]):
        parts = parts[:-1]
    while len(parts) > 1 and (_ROLES.fullmatch(parts[-1]) or _OPERATIONS.fullmatch(parts[-1])):
        parts = parts[:-1]
    return parts


def _is_operation(part: str) -> bool:
    return _OPERATIONS.fullmatch(_NUMBER.sub("", part)) is not None


def value_name(name: str, node: str) -> str:
    """A constant's dotted name, from its own if that means something, else from the node that uses it."""
    own, user = parts_of(name), _doer(parts_of(node))
    parts = own if means_something(name) else [*user, *own[-1:]]
    return ".".join(parts) or "constant"


def common_prefix(names: Iterable[str]) -> str:
    """The parts with which all of these names begin, each keeping one part at least; "" for a single name."""
    split = [name.split(".")[:-1] for name in names]
    if len(split) < 2:
        return ""
    shared: list[str] = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "".join(f"{part}." for part in shared)


class Names:
    """Gives every name once: a second one gets a number, and no name is the beginning of another's path."""

    def __init__(self) -> None:
        self._leaves: set[str] = set()
        self._paths: set[str] = set()
        self._numbers: dict[str, int] = {}  # the next one to try: a file may have a hundred thousand equal names

    def fresh(self, name: str, roles: Iterable[str] = ()) -> str:
        """`name`, or `name_1` … when taken; with roles, the layer `name` that has these tensors."""
        roles = list(roles)
        if self._leaves.intersection(_parents(name)):  # a tensor has nothing below it
            name = name.replace(".", "_")
        for number in count(self._numbers.get(name, 0)):
            self._numbers[name] = number + 1
            candidate = f"{name}_{number}" if number else name
            leaves = [f"{candidate}.{role}" for role in roles] or [candidate]
            parents = {parent for leaf in leaves for parent in _parents(leaf)}
            layer_is_free = not roles or (candidate not in self._paths and candidate not in self._leaves)
            if layer_is_free and not self._leaves & {*leaves, *parents} and not self._paths & set(leaves):
                self._leaves.update(leaves)
                self._paths.update(parents)
                return candidate
        raise AssertionError("there is always another number")


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]
