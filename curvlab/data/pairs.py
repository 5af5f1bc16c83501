"""Which of a file's arrays are the inputs and which the targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from curvlab.data.dataset import Dataset, task_of
from curvlab.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

INPUT_NAMES = (
    "x",
    "data",
    "images",
    "image",
    "inputs",
    "input",
    "features",
    "input_ids",
    "x_train",
    "train_images",
    "x_test",
)
MAIN_KEYWORDS = ("input_ids", "pixel_values", "input_features", "input_values")
"""Inputs that networks of transformers take by name; the first that is there is the main one."""
KEYWORDS = (
    "attention_mask",
    "token_type_ids",
    "position_ids",
    "decoder_input_ids",
    "decoder_attention_mask",
    "pixel_values",
    "pixel_mask",
    "input_features",
    "input_values",
    "mm_token_type_ids",
    "bbox",
    "image_sizes",
)
"""Names of further inputs beside a main one."""
TARGET_NAMES = ("y", "target", "targets", "labels", "label", "y_train", "train_labels", "y_test")


class Described(Protocol):
    """What is known of an array before its numbers are read; a tensor is one."""

    @property
    def ndim(self) -> int:
        """How many axes it has."""

    def is_floating_point(self) -> bool:
        """Whether its numbers are real."""


class Roles(NamedTuple):
    """Names of a file's arrays: inputs, targets, further inputs by keyword, and the rest; `keyword` says whether the
    main one is taken by its name, too."""

    x: str
    y: str | None
    beside: tuple[str, ...]
    unused: tuple[str, ...]
    keyword: bool


def roles(arrays: Mapping[str, Described], source: str) -> Roles:
    """What each of a file's numeric arrays is for.

    Inputs and targets are found by name (`INPUT_NAMES`, `TARGET_NAMES`, in that order, upper or lower case). Without
    such a name, one array is the inputs, and of two arrays the first is the inputs and the second the targets. With
    input_ids among them the file is tokenised text (`tokens.Tokens`), with another of `MAIN_KEYWORDS` it holds inputs
    by name as well (`NamedInputs`).

    Raises:
        DataError: none of them is the inputs.
    """
    main = next((key for key in MAIN_KEYWORDS if key in arrays), None)
    tokens = main == "input_ids" and ("attention_mask" in arrays or _are_tokens(arrays[main]))
    if main is not None and (tokens or main != "input_ids"):
        beside = tuple(key for key in KEYWORDS if key in arrays and key != main)
        target = next((key for key in TARGET_NAMES if key in arrays), None)
        used = {main, target, *beside}
        return Roles(main, target, beside, tuple(key for key in arrays if key not in used), True)
    lowered = {key.lower(): key for key in arrays}
    x_key = next((lowered[key] for key in INPUT_NAMES if key in lowered), None)
    y_key = next((lowered[key] for key in TARGET_NAMES if key in lowered), None)
    rest = [key for key in arrays if key not in (x_key, y_key)]
    if x_key is None and rest and len(arrays) <= 2:
        x_key = rest.pop(0)
        y_key = y_key or (rest.pop(0) if rest else None)
    if x_key is None:
        found = ", ".join(repr(key) for key in list(arrays)[:8]) or "no numeric array"
        raise DataError(
            f"{source} holds {found}", "none of them is named as inputs", "name them x (inputs) and y (targets)"
        )
    return Roles(x_key, y_key, (), tuple(rest), False)


def _are_tokens(array: Described) -> bool:
    return array.ndim == 2 and not array.is_floating_point()


def paired(arrays: Mapping[str, Tensor], chosen: Roles, name: str, source: str) -> Dataset:
    """The dataset that arrays make in these roles; the unused ones need not be there."""
    notes = (f"arrays not used: {', '.join(chosen.unused[:8])}",) if chosen.unused else ()
    y = None if chosen.y is None else arrays[chosen.y]
    if chosen.keyword:
        from curvlab.data.tokens import named, tokenised

        beside = {key: arrays[key] for key in chosen.beside}
        if chosen.x == "input_ids":
            return tokenised(arrays[chosen.x], y, beside, name, source, notes)
        return named(chosen.x, arrays[chosen.x], y, beside, source, notes)
    return dataset(arrays[chosen.x], y, name, source, notes)


def check_shapes(x: tuple[int, ...], y: tuple[int, ...] | None, source: str) -> None:
    """Do nothing when inputs and targets of these shapes are examples that pair up.

    Raises:
        DataError: there is no example, or x and y differ in length.
    """
    if not x or 0 in x:
        raise DataError(f"{source} has inputs of shape {x}", "there is no example in it")
    if y is not None and y[:1] != x[:1]:
        raise DataError(f"{source} has {x[0]} inputs and targets of shape {y}", "they do not pair up")


def dataset(x: Tensor, y: Tensor | None, name: str, source: str, notes: tuple[str, ...] = ()) -> Dataset:
    """A checked dataset of x (n, ...) and y (n, ...): whole-number y becomes int64, one column of it (n,).

    Raises:
        DataError: when there are no examples, x and y differ in length, or x or y is not finite.
    """
    import torch

    check_shapes(tuple(x.shape), None if y is None else tuple(y.shape), source)
    if y is not None and not y.is_floating_point():
        y = y.to(torch.int64)
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    for what, values in (("inputs", x), ("targets", y)):
        if values is None or not values.is_floating_point():
            continue
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            why = "one of them would spoil every statistic"
            raise DataError(
                f"{source} has {bad} values that are not finite in its {what}", why, "remove or replace them"
            )
    return Dataset(name, x, y, source, task=task_of(y), notes=notes)
