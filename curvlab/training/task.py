"""Task: the problem of a run with its examples; a network of the user's own becomes a problem like any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from curvlab.data.budget import within
from curvlab.data.convention import is_of_transformers
from curvlab.data.dataset import Dataset
from curvlab.data.registry import names
from curvlab.errors import CheckpointError, DataError
from curvlab.formats.architecture import describe_architecture
from curvlab.formats.curvlab_file.describe import describe
from curvlab.problems.problem import Problem
from curvlab.problems.registry import problem
from curvlab.problems.split import Split, fingerprint
from curvlab.quoting import reason
from curvlab.training.own_network import OwnNetwork, output_of, own_problem
from curvlab.training.settings import TrainingSettings

if TYPE_CHECKING:
    pass


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
        folders: of the saved network that the run began with.
    """

    problem: Problem
    split: Split
    fingerprint: str
    architecture: str | None
    data: str | None
    notes: tuple[str, ...]
    folders: tuple[Path, ...] = ()


def task(settings: TrainingSettings, own: OwnNetwork | None = None) -> Task:
    """The task that the settings name, checked by running the network on two examples.

    Args:
        settings: of the run.
        own: network and data in memory, which the settings only have names for.

    Raises:
        CurvlabError: data or network cannot be had, or do not fit each other.
    """
    if own is None and settings.architecture is not None:
        own = OwnNetwork.of_architecture(settings.architecture, str(settings.data), settings.loss)
    notes: tuple[str, ...] = ()
    data: str | Dataset | None
    if own is None:
        chosen, data = problem(str(settings.problem)), settings.data
    else:
        chosen, data, notes = own_problem(own, settings.seed, settings.max_memory)
    split = chosen.load(settings.seed, data, settings.max_memory)
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
        tuple(dict.fromkeys((*notes, *split.train.notes))),
        () if own is None else own.folders,
    )


def data_bytes(split: Split, dtype: torch.dtype) -> int:
    """The bytes of both parts, with floating-point numbers in `dtype`."""
    tensors = [tensor for part in (split.train, split.test) for tensor in part.tensors()]
    return sum(t.numel() * (dtype if t.is_floating_point() else t.dtype).itemsize for t in tensors)


def on_device(part: Dataset, device: torch.device, dtype: torch.dtype) -> Dataset:
    """The examples where they are computed on, floating-point ones in `dtype`."""

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)

    return part.mapped(moved)


def _tried(module: nn.Module, part: Dataset, chosen: Problem) -> None:
    y = part.y
    z = output_of(module, part)
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
    """None when the network can be written down as data, else the code that makes it; "hf" where a config.json does."""
    if is_of_transformers(module):
        return "hf"
    try:
        describe(module)
    except CheckpointError:
        return code
    return None
