"""Which of a file's arrays are the inputs and which the targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

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
TARGET_NAMES = ("y", "target", "targets", "labels", "label", "y_train", "train_labels", "y_test")


def paired(arrays: Mapping[str, Tensor], name: str, source: str) -> Dataset:
    """The dataset in a file's numeric arrays.

    Inputs and targets are found by name (`INPUT_NAMES`, `TARGET_NAMES`, in that order, upper or lower case). Without
    such a name, one array is the inputs, and of two arrays the first is the inputs and the second the targets. With
    input_ids among them the file is tokenised text (`tokens.Tokens`).
    """
    ids = arrays.get("input_ids")
    if ids is not None and ("attention_mask" in arrays or (ids.ndim == 2 and not ids.is_floating_point())):
        from curvlab.data.tokens import tokenised

        return tokenised(arrays, name, source)
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
    notes = (f"arrays not used: {', '.join(rest[:8])}",) if rest else ()
    return dataset(arrays[x_key], None if y_key is None else arrays[y_key], name, source, notes)


def dataset(x: Tensor, y: Tensor | None, name: str, source: str, notes: tuple[str, ...] = ()) -> Dataset:
    """A checked dataset of x (n, ...) and y (n, ...): whole-number y becomes int64, one column of it (n,).

    Raises:
        DataError: when there are no examples, x and y differ in length, or x or y is not finite.
    """
    import torch

    if x.ndim == 0 or x.shape[0] == 0 or x.numel() == 0:
        raise DataError(f"{source} has inputs of shape {tuple(x.shape)}", "there is no example in it")
    if y is not None:
        if y.ndim == 0 or y.shape[0] != x.shape[0]:
            raise DataError(
                f"{source} has {x.shape[0]} inputs and targets of shape {tuple(y.shape)}", "they do not pair up"
            )
        if not y.is_floating_point():
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
