"""OwnNetwork: a network and data of the user's own, which become a problem like any other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from curvlab.analyses.likelihood_choice import choose_likelihood
from curvlab.data.dataset import Dataset
from curvlab.data.fit import fit, input_shape
from curvlab.data.load import load
from curvlab.errors import DataError
from curvlab.formats.architecture import build_architecture
from curvlab.problems.metrics import accuracy, reconstruction_error, squared_error
from curvlab.problems.problem import Problem, Targets
from curvlab.quoting import reason

if TYPE_CHECKING:
    from curvlab.problems.problem import Metric

HELD_OUT = 0.2
"""Share of the examples to test on where the data has no test part of its own."""
EPOCHS, BATCH_SIZE = 10, 128
"""Epochs and batch size for a network whose options say neither."""


@dataclass(frozen=True)
class OwnNetwork:
    """A network and its data.

    Attributes:
        name: what results call it: "package.module:callable".
        build: makes the network, with torch's random numbers where it draws any.
        data: a dataset's name, a path, or the examples.
        loss: "cross-entropy", "bce", "mse" or "auto".
    """

    name: str
    build: Callable[[], nn.Module]
    data: str | Dataset
    loss: str = "auto"

    @classmethod
    def of_architecture(cls, architecture: str, data: str | Dataset, loss: str) -> OwnNetwork:
        """What "package.module:callable" makes."""
        return cls(architecture, partial(build_architecture, architecture), data, loss)

    @classmethod
    def of_module(cls, module: nn.Module, data: str | Dataset, loss: str) -> OwnNetwork:
        """A network in memory, with the weights that it has."""
        kind = type(module)
        return cls(f"{kind.__module__}:{kind.__qualname__}", partial(copy.deepcopy, module), data, loss)


def as_dataset(data: object) -> str | Dataset:
    """A name or path as it is, and examples as a Dataset.

    Raises:
        DataError: what was given holds no examples that could be shuffled and divided.
    """
    if isinstance(data, str | Dataset):
        return data
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Tensor) and isinstance(data[1], Tensor):
        return Dataset("tensors", data[0], data[1], "tensors given in Python")
    found = f"data of type {type(data).__name__} cannot be trained on"
    raise DataError(
        found, "examples are shuffled, and some held out", "give a dataset's name, a path, or (x, y) tensors"
    )


def own_problem(own: OwnNetwork, seed: int = 0, max_memory: int | None = None) -> tuple[Problem, tuple[str, ...]]:
    """The problem, with the weights that `seed` draws; and what the user should know of it.

    Raises:
        CurvlabError: network or data cannot be had, or do not fit each other.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = own.build()
    whole = own.data
    if isinstance(whole, str):
        whole = load(whole, input_shape=input_shape(module), seed=seed, max_memory=max_memory)
    whole = fit(whole, module)
    x, y = whole.x[:2].float() if whole.x.is_floating_point() else whole.x[:2], whole.y
    z = output_of(module, x, whole)
    inputs = own.loss in ("bce", "mse") and z.shape == x.shape and (y is None or y[:1].numel() != x[:1].numel())
    shown = whole.x if inputs else y
    likelihood, note = choose_likelihood(own.loss, None, z, shown)
    targets: Targets = "inputs" if inputs else "labels" if likelihood.name == "categorical" else "values"
    made = Problem(
        name=own.name,
        description=f"{own.name} on {whole.source}",
        source="the user's own",
        model=partial(copy.deepcopy, module),
        data=own.data if isinstance(own.data, str) else whole.source,
        input_shape=tuple(x.shape[1:]),
        targets=targets,
        likelihood=likelihood.name,
        metrics=_metrics(likelihood.name, targets, shown),
        test_size=max(1, round(HELD_OUT * len(whole))),
        batch_size=min(BATCH_SIZE, max(1, len(whole) // 2)),
        epochs=EPOCHS,
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


def output_of(module: nn.Module, x: Tensor, dataset: Dataset) -> Tensor:
    """What a copy of the network answers to x in eval mode, as a tensor; the network is not touched."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            z = (copy.deepcopy(module).to(x.dtype) if x.is_floating_point() else copy.deepcopy(module)).eval()(x)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shape = "x".join(map(str, x.shape[1:]))
        found = f"the network cannot take {dataset.source}, examples of shape {shape}"
        raise DataError(found, reason(error), "give other data, or change the architecture") from error
    if not isinstance(z, Tensor):
        raise DataError(f"the network answers with {type(z).__name__}", "a loss needs a tensor")
    return z
