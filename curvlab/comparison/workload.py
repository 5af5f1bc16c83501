"""Workload: the network, the batches and the loss that optimizers are compared on."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.analyses.likelihood_choice import choose_likelihood, with_logits
from curvlab.analyses.loaded import Model, as_checkpoint
from curvlab.analyses.source import moved, open_source
from curvlab.capture.closures import Closure
from curvlab.capture.model_inputs import Inputs, call_model, explained
from curvlab.capture.output import answer, output_tensor
from curvlab.comparison.data_options import DataOptions
from curvlab.comparison.exact_baseline import Part
from curvlab.data.preparation import Preparation
from curvlab.data.registry import names
from curvlab.device import pick_device
from curvlab.errors import CurvlabError, DataError
from curvlab.likelihoods import Likelihood, likelihood
from curvlab.likelihoods.of_batch import of_batch
from curvlab.problems.batches import batches
from curvlab.problems.registry import problem
from curvlab.problems.split import fingerprint
from curvlab.training.own_network import OwnNetwork, own_problem
from curvlab.training.task import on_device

BATCH_SIZE = 256
SAMPLES = 1024
"""Examples beside a saved model where `samples` is not given; the exact Fisher then has rank 1024 at most."""


@dataclass(frozen=True)
class Workload:
    """What is compared on.

    Attributes:
        name: of the problem, or the path of the model.
        model: with the weights to begin from.
        likelihood: of its output.
        closures: starts the batches, as closures that return the mean loss: endless for a problem, one pass over the
            data for a saved model.
        warm: starts one pass over the training set for a warm start; nothing for a saved model.
        whole: all the data in parts, as functions that return (mean loss, output, likelihood) in eval mode.
        settings: optimizer -> what the problem recommends.
        info: what the data is, for the result.
        data_hash: sha256 of the examples, and of what decides their order.
        first: a few inputs.
        passes: batches of one pass over the data.
        moves: whether there is a trajectory; a saved model stays at its weights.
        notes: sentences for the user.
    """

    name: str
    model: nn.Module
    likelihood: Likelihood
    closures: Callable[[], Iterator[Closure]]
    warm: Callable[[], Iterator[Closure]]
    whole: tuple[Part, ...]
    settings: Mapping[str, Mapping[str, Any]]
    info: Mapping[str, Any]
    data_hash: str
    first: Inputs
    passes: int
    moves: bool
    notes: tuple[str, ...] = ()


def of_problem(name: str | OwnNetwork, data_options: DataOptions) -> Workload:
    """A problem at its initial weights; batches are those of a training run with the same seed.

    Args:
        name: the problem's; or a network of the user's own with its data.
        data_options: see there.

    Raises:
        CurvlabError: there is no such problem, or its data cannot be had.
    """
    notes: tuple[str, ...] = ()
    if isinstance(name, OwnNetwork):
        chosen, data, notes = own_problem(name, data_options.seed, data_options.max_memory)
    else:
        data, chosen = data_options.data, problem(name)
    device, dtype = pick_device(data_options.device), getattr(torch, data_options.dtype)
    model = chosen.build(data_options.seed).to(device, dtype).train()
    split = chosen.load(data_options.seed, data, data_options.max_memory)
    train = on_device(split.train, device, dtype)
    if data_options.samples is not None:
        train = train.take(data_options.samples, data_options.seed)
    size = min(data_options.batch_size or chosen.batch_size, len(train))

    def closures() -> Iterator[Closure]:
        for epoch in count():
            for x, y in batches(train, size, epoch, data_options.seed, last="drop"):
                yield lambda x=x, y=y: chosen.loss(answer(model, x), y)  # type: ignore[misc]

    def warm() -> Iterator[Closure]:
        return islice(closures(), len(train) // size)

    def part(start: int) -> tuple[Tensor, Tensor, Likelihood]:
        assert train.y is not None
        with evaluating(model):
            z = answer(model, train.inputs(slice(start, start + BATCH_SIZE)))
        y = train.y[start : start + BATCH_SIZE]
        return chosen.loss(z, y), z, of_batch(likelihood(chosen.likelihood), z, y)

    whole = tuple(partial(part, start) for start in range(0, len(train), BATCH_SIZE))
    info = {"source": train.source, "samples": len(train), "batch_size": size}
    order = f"{fingerprint(split)} {len(train)} {size} {data_options.seed}"
    digest = hashlib.sha256(order.encode()).hexdigest()
    return Workload(
        chosen.name,
        model,
        likelihood(chosen.likelihood),
        closures,
        warm,
        whole,
        chosen.settings,
        info,
        digest,
        train.inputs(slice(2)),
        len(train) // size,
        True,
        notes,
    )


def of_model(given: Model, data_options: DataOptions) -> Workload:
    """A saved network in eval mode on data with targets.

    Raises:
        CurvlabError: the file holds no network, or the data has no targets.
    """
    checkpoint = as_checkpoint(given)
    if checkpoint.module is None:
        raise CurvlabError(
            "the file holds weights only, and directions need a network that runs",
            "; ".join(checkpoint.notes),
            "give --architecture package.module:callable",
        )
    data = data_options.data
    if data is None and checkpoint.data in names():
        data = checkpoint.data
    if data is None:
        raise DataError("directions are of a loss, and there is no data", do="give --data NAME or PATH")
    device, dtype = pick_device(data_options.device), getattr(torch, data_options.dtype)
    model = copy.deepcopy(checkpoint.module).to(device, dtype).eval()
    model.zero_grad(set_to_none=True)
    source = open_source(
        data,
        model,
        samples=data_options.samples or SAMPLES,
        seed=data_options.seed,
        max_memory=data_options.max_memory,
        loss=data_options.loss,
        preparation=Preparation(model, checkpoint.folders),
    )
    if source.targets is None:
        raise DataError(f"{source.info['source']} has no targets", "directions are of a loss")
    with explained(str(source.info["source"])), torch.no_grad():
        first, _ = moved((source.first, None), device, dtype)
        z = output_tensor(call_model(model, first))
    chosen, note = choose_likelihood(
        data_options.loss, checkpoint.likelihood, z, source.targets, first, source.sequences
    )
    taken_off = with_logits(model, chosen, z)
    if taken_off is not None:
        with torch.no_grad():
            z = output_tensor(call_model(model, first))
        chosen, note = choose_likelihood(
            data_options.loss, checkpoint.likelihood, z, source.targets, first, source.sequences
        )
    notes = (*checkpoint.notes, *source.notes, *(said for said in (note, taken_off) if said))

    own_inputs = chosen.name != "categorical" and isinstance(source.first, Tensor) and z.shape == source.first.shape
    if own_inputs and z.shape[1:] != source.targets.shape[1:]:
        notes = (*notes, "targets: the inputs themselves, which the output has the shape of")
    else:
        own_inputs = False
    size = min(data_options.batch_size or BATCH_SIZE, source.samples or BATCH_SIZE)

    def run(batch: tuple[Inputs, Tensor | None]) -> tuple[Tensor, Tensor, Likelihood]:
        x, y = moved(batch, device, dtype)
        z = output_tensor(call_model(model, x))
        y = x if own_inputs and isinstance(x, Tensor) else y
        assert y is not None
        counted = of_batch(chosen, z, y, x)
        return counted.loss(z, y.to(z.dtype) if y.is_floating_point() else y), z, counted

    def closures() -> Iterator[Closure]:
        for batch in source.batches(size):
            yield lambda batch=batch: run(batch)[0]  # type: ignore[misc]

    whole = tuple(partial(run, batch) for batch in source.batches(BATCH_SIZE))
    info = {**source.info, "batch_size": size}
    name = "module" if checkpoint.path is None else str(checkpoint.path)
    digest, passes = _hash(source.batches(size)), sum(1 for _ in source.batches(size))
    return Workload(name, model, chosen, closures, closures, whole, {}, info, digest, first, passes, False, notes)


def _hash(batches: Iterator[tuple[Inputs, Tensor | None]]) -> str:
    digest = hashlib.sha256()
    for x, y in batches:
        parts = [x] if isinstance(x, Tensor) else list(x.values() if isinstance(x, Mapping) else x)
        for part in (*parts, y):
            if isinstance(part, Tensor):
                digest.update(f"{tuple(part.shape)} {part.dtype}".encode())
                digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards the mode of before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
