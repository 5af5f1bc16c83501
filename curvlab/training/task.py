"""Task: the problem of a run with its examples; a network of the user's own becomes a problem like any other."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from curvlab.analyses.likelihood_choice import choose_likelihood
from curvlab.data.budget import within
from curvlab.data.dataset import Dataset
from curvlab.data.fit import fit, input_shape
from curvlab.data.load import load
from curvlab.data.registry import names
from curvlab.errors import CheckpointError, DataError
from curvlab.formats.architecture import build_architecture, describe_architecture
from curvlab.formats.curvlab_file.describe import describe
from curvlab.problems.metrics import accuracy, reconstruction_error, squared_error
from curvlab.problems.problem import Problem, Targets
from curvlab.problems.registry import problem
from curvlab.problems.split import Split, fingerprint
from curvlab.quoting import reason
from curvlab.training.settings import TrainingSettings

if TYPE_CHECKING:
    from curvlab.problems.problem import Metric

HELD_OUT = 0.2
"""Share of the examples to test on where the data has no test part of its own."""
AD_HOC_EPOCHS, AD_HOC_BATCH = 10, 128
"""For a network of which nobody has said how long it is trained, and on how many examples at once."""


@dataclass(frozen=True)
class Task:
    """A problem, its examples, and how the trained network is to be recorded.

    Attributes:
        problem: network, likelihood, metrics.
        split: examples to train on and examples held out.
        fingerprint: sha256 of the examples in their order.
        architecture: "package.module:callable" where the network cannot be described as data; None where it can.
        data: the dataset's name where it is embedded, so that the model's file can name it; else None.
        notes: what the user should know of it.
    """

    problem: Problem
    split: Split
    fingerprint: str
    architecture: str | None
    data: str | None
    notes: tuple[str, ...]


def task(settings: TrainingSettings) -> Task:
    """The task that the settings name, checked by running the network on two examples.

    Raises:
        CurvlabError: data or network cannot be had, or do not fit each other.
    """
    if settings.architecture is not None:
        chosen, notes = _ad_hoc(settings.architecture, str(settings.data), settings)
    else:
        chosen, notes = problem(str(settings.problem)), ()
    split = chosen.load(settings.seed, settings.data, settings.max_memory)
    if settings.max_memory is not None:
        within(data_bytes(split, getattr(torch, settings.dtype)), settings.max_memory, split.train.source)
    outline = chosen.build(settings.seed)
    _tried(outline, split.train, chosen)
    source = settings.data or chosen.data
    return Task(
        chosen,
        split,
        fingerprint(split),
        _architecture(outline, settings.architecture or describe_architecture(chosen.model)),
        source if source in names() else None,
        (*notes, *split.train.notes),
    )


def data_bytes(split: Split, dtype: torch.dtype) -> int:
    """Of both parts, floating-point numbers in `dtype`."""
    tensors = [t for part in (split.train, split.test) for t in (part.x, part.y) if t is not None]
    return sum(t.numel() * (dtype if t.is_floating_point() else t.dtype).itemsize for t in tensors)


def on_device(part: Dataset, device: torch.device, dtype: torch.dtype) -> Dataset:
    """The examples where they are computed on, floating-point ones in `dtype`."""

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)

    return replace(part, x=moved(part.x), y=None if part.y is None else moved(part.y))


def _ad_hoc(architecture: str, data: str, settings: TrainingSettings) -> tuple[Problem, tuple[str, ...]]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        module = build_architecture(architecture)
    whole = load(data, input_shape=input_shape(module), seed=settings.seed, max_memory=settings.max_memory)
    whole = fit(whole, module)
    x, y = whole.x[:2].float() if whole.x.is_floating_point() else whole.x[:2], whole.y
    z = _output(module, x, whole)
    inputs = settings.loss in ("bce", "mse") and z.shape == x.shape and (y is None or y[:1].numel() != x[:1].numel())
    shown = whole.x if inputs else y
    likelihood, note = choose_likelihood(settings.loss, None, z, shown)
    targets: Targets = "inputs" if inputs else "labels" if likelihood.name == "categorical" else "values"
    made = Problem(
        name=architecture,
        description=f"{architecture} on {whole.source}",
        source="the user's own",
        model=partial(copy.deepcopy, module),
        data=data,
        input_shape=tuple(x.shape[1:]),
        targets=targets,
        likelihood=likelihood.name,
        metrics=_metrics(likelihood.name, targets, shown),
        test_size=max(1, round(HELD_OUT * len(whole))),
        batch_size=min(AD_HOC_BATCH, max(1, len(whole) // 2)),
        epochs=AD_HOC_EPOCHS,
        settings={},
    )
    return made, (note,) if note else ()


def _metrics(likelihood: str, targets: Targets, y: Tensor | None) -> Mapping[str, Metric]:
    if likelihood == "categorical":
        return {"accuracy": accuracy}
    if likelihood == "gaussian":
        return {"squared_error": squared_error}
    if targets == "values" and y is not None and bool(((y == 0) | (y == 1)).all()):
        return {"accuracy": binary_accuracy}
    return {"reconstruction_error": reconstruction_error}


def binary_accuracy(z: Tensor, y: Tensor) -> Tensor:
    """1/n Σ_n mean_j [(z_nj > 0) = y_nj]: logits z and targets y in {0, 1} of one shape → a scalar in [0, 1]."""
    return ((z > 0) == (y > 0.5)).to(z.dtype).mean()


def _output(module: nn.Module, x: Tensor, dataset: Dataset) -> Tensor:
    """What a copy of the network answers to x in eval mode, as a tensor; the network is not touched."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            z = copy.deepcopy(module).eval()(x)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shape = "x".join(map(str, x.shape[1:]))
        found = f"the network cannot take {dataset.source}, examples of shape {shape}"
        raise DataError(found, reason(error), "give other data, or change the architecture") from error
    if not isinstance(z, Tensor):
        raise DataError(f"the network answers with {type(z).__name__}", "a loss needs a tensor")
    return z


def _tried(module: nn.Module, part: Dataset, chosen: Problem) -> None:
    x, y = part.x[:2], part.y
    z = _output(module, x, part)
    try:
        loss = chosen.loss(z, y[:2]) if y is not None else None
    except (RuntimeError, ValueError, IndexError) as error:
        shapes = f"outputs of shape {tuple(z.shape)}" + (
            "" if y is None else f", targets of shape {tuple(y[:2].shape)}"
        )
        raise DataError(
            f"the loss of likelihood {chosen.likelihood} cannot be computed for two examples",
            f"{shapes}: {reason(error)}",
        ) from error
    if loss is not None and loss.numel() != 1:
        raise DataError(f"the loss has shape {tuple(loss.shape)}", "a number was expected")


def _architecture(module: nn.Module, code: str) -> str | None:
    """None when the network can be written down as data, else the code that makes it."""
    try:
        describe(module)
    except CheckpointError:
        return code
    return None
