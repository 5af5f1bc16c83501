"""Source: the data of an analysis as a stream of batches, whatever it was given as."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, starmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.capture.model_inputs import Inputs, batch_size
from curvlab.capture.survey import first_examples
from curvlab.curvature import batches_of
from curvlab.data.as_taken import as_taken
from curvlab.data.dataset import Dataset
from curvlab.data.fit import input_shape
from curvlab.data.load import load
from curvlab.data.preparation import Preparation
from curvlab.data.sequence_targets import SequenceTargets
from curvlab.errors import DataError


@dataclass(frozen=True)
class Source:
    """Batches of (inputs, targets) and where they come from.

    Attributes:
        batches: `batches(size)` starts a pass over the data in batches of at most that many examples (loaders keep
            their own).
        first: a few inputs, for the survey of the model.
        targets: the first targets, or None.
        samples: number of examples, or None for a loader of unknown length.
        info: the "data" entry of the JSON.
        notes: what was done to the data.
        sequences: what the outputs of a network over sequences speak of; None of any other network.
        repeatable: whether `batches` can be called again; an iterator gives its batches once.
    """

    batches: Callable[[int], Iterator[tuple[Inputs, Tensor | None]]]
    first: Inputs
    targets: Tensor | None
    samples: int | None
    info: dict[str, Any]
    notes: tuple[str, ...] = ()
    sequences: SequenceTargets | None = None
    repeatable: bool = True


def open_source(
    data: Any,
    module: nn.Module,
    *,
    samples: int | None,
    seed: int,
    max_memory: int | None = None,
    loss: str = "auto",
    preparation: Preparation | None = None,
) -> Source:
    """A source from a dataset's name or path, a Dataset, tensors, an (x, y) pair, or a loader.

    Args:
        data: what was given.
        module: the network; networks over sequences get inputs and targets as they are trained (`SequenceTargets`).
        samples: how many examples; None for all.
        seed: of the draw.
        max_memory: bytes that the data may take.
        loss: the user's choice, "auto" without.
        preparation: how text and pictures become inputs of the network.

    Raises:
        DataError: what was given is none of these, or it is empty.
    """
    if isinstance(data, str | Path):
        shape = input_shape(module)
        data = load(data, input_shape=shape, samples=samples, seed=seed, max_memory=max_memory, preparation=preparation)
    if isinstance(data, Dataset):
        return _dataset(data.take(samples, seed), module, loss)
    if isinstance(data, Tensor | Mapping):
        data = (data, None)
    targets = SequenceTargets.of(module, loss)
    if isinstance(data, tuple) and len(data) == 2 and (data[1] is None or isinstance(data[1], Tensor)):
        y = data[1] if data[1] is None or samples is None else data[1][:samples]
        return _given(_taken(data[0], samples), y, targets)
    if isinstance(data, Iterable):
        return _loader(data, samples, targets)
    raise DataError(
        f"data of type {type(data).__name__} cannot be used",
        "",
        "give a dataset's name, a path, (x, y) tensors or a loader",
    )


def _dataset(data: Dataset, module: nn.Module, loss: str) -> Source:
    """A dataset's source."""
    taken, targets = as_taken(data, module, loss)
    source = _tensors(taken.inputs(slice(None)), taken.y, taken.source)
    return replace(source, info={**source.info, "synthetic": taken.synthetic}, notes=taken.notes, sequences=targets)


def _given(x: Inputs, y: Tensor | None, targets: SequenceTargets | None) -> Source:
    """The source of tensors given in Python."""
    notes: tuple[str, ...] = ()
    if targets is not None:
        targets = targets.checked(*targets.named(x, y))
        x, y = targets.applied(x, y)
        notes = (targets.sentence(y),)
    return replace(_tensors(x, y, "tensors given in Python"), notes=notes, sequences=targets)


def _taken(x: Inputs, samples: int | None) -> Inputs:
    return x if samples is None else first_examples(x, samples)


def _tensors(x: Inputs, y: Tensor | None, source: str) -> Source:
    count = batch_size(x)
    if count == 0:
        raise DataError("the data holds no examples")
    if y is not None and y.shape[:1] != (count,):
        raise DataError(f"there are {count} inputs and targets of shape {tuple(y.shape)}", "their numbers must agree")

    def batches(size: int) -> Iterator[tuple[Inputs, Tensor | None]]:
        for start in range(0, count, size):
            yield _slice(x, start, start + size, count), None if y is None else y[start : start + size]

    return Source(batches, first_examples(x, 2), y, count, _info(source, count, x))


def _loader(loader: Iterable[Any], samples: int | None, targets: SequenceTargets | None) -> Source:
    once = batches_of(loader, None)
    head = next(once, None)
    if head is None or batch_size(head[0]) == 0:
        raise DataError("the loader gives no batch" if head is None else "the loader's first batch holds no examples")
    if targets is not None:
        targets = targets.checked(*targets.named(*head))
    count = samples
    if samples is None and hasattr(loader, "dataset") and hasattr(loader.dataset, "__len__"):
        count = len(loader.dataset)

    def batches(size: int) -> Iterator[tuple[Inputs, Tensor | None]]:
        # An iterator gives its first batch only once.
        given = _at_most(chain([head], once) if iter(loader) is loader else batches_of(loader, None), samples)
        return given if targets is None else starmap(targets.applied, given)

    x, y = head if targets is None else targets.applied(*head)
    notes = () if targets is None else (targets.sentence(y),)
    info, again = _info("a loader given in Python", count, x), iter(loader) is not loader
    return Source(batches, first_examples(x, 2), y, count, info, notes, targets, again)


def _at_most(
    batches: Iterable[tuple[Inputs, Tensor | None]], samples: int | None
) -> Iterator[tuple[Inputs, Tensor | None]]:
    """The first `samples` examples; all of them for None."""
    left = samples
    for x, y in batches:
        size = batch_size(x)
        if left is None or size <= left:
            yield x, y
        else:
            yield _slice(x, 0, left, size), None if y is None else y[:left]
        if left is not None:
            left -= min(size, left)
            if left == 0:
                return


def _info(source: str, count: int | None, x: Inputs) -> dict[str, Any]:
    first = (
        x
        if isinstance(x, Tensor)
        else next(p for p in (x.values() if isinstance(x, Mapping) else x) if isinstance(p, Tensor))
    )
    return {"source": source, "samples": count, "synthetic": False, "input_shape": list(first.shape[1:])}


def _slice(x: Inputs, start: int, stop: int, count: int) -> Inputs:
    def cut(part: Any) -> Any:
        return part[start:stop] if isinstance(part, Tensor) and part.ndim and part.shape[0] == count else part

    if isinstance(x, Tensor):
        return x[start:stop]
    return {k: cut(p) for k, p in x.items()} if isinstance(x, Mapping) else tuple(cut(p) for p in x)


def moved(
    batch: tuple[Inputs, Tensor | None], device: torch.device, dtype: torch.dtype
) -> tuple[Inputs, Tensor | None]:
    """The batch on a device, its floating-point inputs in `dtype`; targets keep their type."""

    def move(part: Any) -> Any:
        if not isinstance(part, Tensor):
            return part
        return part.to(device, dtype) if part.is_floating_point() else part.to(device)

    x, y = batch
    inputs = (
        move(x)
        if isinstance(x, Tensor)
        else {k: move(p) for k, p in x.items()}
        if isinstance(x, Mapping)
        else tuple(map(move, x))
    )
    return inputs, None if y is None else y.to(device)
