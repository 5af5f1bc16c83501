"""`curvlab.load`: detect the format, read it safely, infer its layers, build its network where that is possible."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from curvlab.checkpoints.checkpoint import Checkpoint
from curvlab.checkpoints.formats import FORMATS
from curvlab.checkpoints.names import natural_key, without_wrappers
from curvlab.checkpoints.quoting import listed, quoted, reason
from curvlab.errors import CheckpointError, MemoryBudgetError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from curvlab.checkpoints.architecture import Architecture
    from curvlab.checkpoints.fold import Fold
    from curvlab.checkpoints.fop_matrices import FopMatrices
    from curvlab.checkpoints.stored import LazyTensors, Stored

_DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Network(NamedTuple):
    """A runnable module, how it came about, and what to tell the user."""

    module: nn.Module | None = None
    made_by: str | None = None
    notes: tuple[str, ...] = ()


def load(
    path: str | os.PathLike[str],
    *,
    architecture: Architecture | None = None,
    trust: bool = False,
    max_memory: int | None = None,
) -> Checkpoint:
    """A saved model: its tensors, its layers, and its network where the file or `architecture` gives one.

    No code from the file is ever run. Tensors are read when asked for.

    Args:
        path: a model file, an `*.index.json` or a directory with one, or the directory of a training run.
        architecture: `"package.module:callable"`, or a callable without arguments, that makes the network.
        trust: run the callable that a curvlab file names; nothing else is enabled by it yet.
        max_memory: bytes that loading, and reading the largest tensor, may take; None for what the file itself
            warrants.

    Raises:
        CheckpointError: one sentence on what the file is, why it cannot be read, and what to do.
        MemoryBudgetError: a tensor, or the network, needs more than `max_memory`.
    """
    from curvlab.checkpoints.fop_matrices import without_fop_matrices

    path = Path(path)
    try:
        path = _model_in(path)
        stored = _read(path, max_memory)
        _check_budget(path, stored, max_memory)
        stored, fop = without_fop_matrices(stored)
        stored, fop = _renamed(path, stored, fop)
        network = _network(path, stored, architecture, trust, max_memory)
        return _checkpoint(path, _ordered(stored, network.module), network, fop)
    except OSError as error:
        raise CheckpointError(f"{quoted(path)} cannot be read", reason(error)) from error


def _model_in(path: Path) -> Path:
    """The model of a directory that `curvlab train` wrote; any other path is itself."""
    from curvlab.checkpoints.paths import existing

    model = path / "model.safetensors"
    return model if existing(path).is_dir() and (path / "metrics.jsonl").is_file() and model.is_file() else path


def _read(path: Path, max_memory: int | None) -> Stored:
    from curvlab.checkpoints.detect import detect
    from curvlab.checkpoints.safetensors_file import read_safetensors
    from curvlab.checkpoints.sharded import read_sharded
    from curvlab.checkpoints.torch_file import foreign_classes, read_torch_legacy, read_torch_zip

    readers: Mapping[str, Callable[[Path], Stored]] = {
        "safetensors": read_safetensors,
        "safetensors-sharded": read_sharded,
        "torch-zip": partial(read_torch_zip, max_memory=max_memory),
        "torch-legacy": partial(read_torch_legacy, max_memory=max_memory),
    }
    name = detect(path)
    if name == "pickle":
        raise foreign_classes(path)
    if name not in readers:
        found = FORMATS[name]
        raise CheckpointError(
            f"{quoted(path)} is {found.what}", "this version of curvlab cannot read it yet", found.needs
        )
    stored = readers[name](path)
    if not stored.specs:
        raise CheckpointError(f"{quoted(path)} holds no tensors", do="give a file with the weights of a network")
    return stored


def _renamed(path: Path, stored: Stored, fop: FopMatrices | None) -> tuple[Stored, FopMatrices | None]:
    """Names without the prefixes of DataParallel and torch.compile."""
    from curvlab.checkpoints.stored import LazyTensors

    plain, removed = without_wrappers([*stored.specs, *stored.aliases])
    if not stored.specs:
        raise CheckpointError(f"{quoted(path)} holds no weights", do="give a file with the weights of a network")
    if not removed:
        return stored, fop
    shorter = {stored_name: name for name, stored_name in plain.items()}
    weights = replace(
        stored,
        specs={shorter[name]: spec for name, spec in stored.specs.items()},
        tensors=LazyTensors({shorter[name]: stored.tensors.reader(name) for name in stored.tensors}),
        aliases={shorter[alias]: shorter[kept] for alias, kept in stored.aliases.items()},
        notes=(*stored.notes, f"taken off the names: {listed(removed)}"),
    )
    return weights, None if fop is None else fop.renamed(shorter)


def _check_budget(path: Path, stored: Stored, max_memory: int | None) -> None:
    name, largest = max(stored.specs.items(), key=lambda item: item[1].stored_bytes)
    if max_memory is not None and largest.stored_bytes > max_memory:
        raise MemoryBudgetError(
            f"tensor {quoted(name)} of {quoted(path)} takes {largest.stored_bytes} bytes",
            f"--max-memory allows {max_memory}",
            "raise the limit",
        )


def _network(
    path: Path, stored: Stored, architecture: Architecture | None, trust: bool, max_memory: int | None
) -> Network:
    from curvlab.checkpoints.architecture import build_architecture, describe_architecture, load_weights
    from curvlab.checkpoints.own import recorded_module

    if architecture is None and stored.format == "curvlab":
        recorded = recorded_module(path, stored, max_memory)
        if recorded.module is not None:
            return Network(recorded.module, "curvlab metadata")
        if recorded.callable is None:
            return Network(
                notes=(f"{recorded.note or ''}: give --architecture package.module:callable for a full profile",)
            )
        if not trust:
            name = quoted(recorded.callable)
            return Network(
                notes=(f"the file names the code that makes its network: give --architecture {name} to run it",)
            )
        architecture = recorded.callable
    if architecture is None:
        return Network(
            notes=("the file holds weights only: --architecture package.module:callable gives a full profile",)
        )
    module = load_weights(path, build_architecture(architecture), stored.tensors, stored.aliases)
    return Network(module, describe_architecture(architecture))


def _ordered(stored: Stored, module: nn.Module | None) -> Stored:
    """Names in the order of the network; without one, the file's order if it is the network's, else the natural one."""
    if module is not None:
        position = {name: index for index, name in enumerate(module.state_dict())}
        last = len(position)
        order = sorted(stored.specs, key=lambda name: position.get(name, last))
    elif stored.ordered:
        return stored
    else:
        order = sorted(stored.specs, key=natural_key)
    return replace(stored, specs={name: stored.specs[name] for name in order})


def _checkpoint(path: Path, stored: Stored, network: Network, fop: FopMatrices | None) -> Checkpoint:
    from curvlab.checkpoints.infer import infer_layers

    found = infer_layers(stored.specs, stored.tensors)
    if all(layer.kind == "buffer" for layer in found.layers):
        names = listed(stored.specs)
        raise CheckpointError(f"{quoted(path)} holds no weights", f"its tensors are {names}, none of which is trained")
    specs = {**stored.specs, **{name: fold.spec for name, fold in found.folds.items()}}
    own = stored.format == "curvlab"
    data, likelihood = (stored.metadata.get(f"curvlab.{key}") if own else None for key in ("data", "likelihood"))
    notes = [*stored.notes, *network.notes]
    if data is not None and not _DATASET_NAME.fullmatch(data):
        # A file from a stranger must not make an analysis open another file.
        notes.append(f"the file was trained on {quoted(data)}, which is no dataset name: give --data to use it")
        data = None
    return Checkpoint(
        path=path,
        format=stored.format,
        tensors=_with_folds(stored, specs, found.folds),
        shapes={name: spec.shape for name, spec in specs.items()},
        dtypes={name: spec.dtype for name, spec in specs.items()},
        layers=found.layers,
        module=network.module,
        architecture=network.made_by,
        metadata=stored.metadata,
        notes=tuple(notes),
        data=data,
        likelihood=likelihood if likelihood in {"categorical", "bernoulli", "gaussian"} else None,
        aliases=stored.aliases,
        folded={name: fold.sources for name, fold in found.folds.items()},
        files=stored.files,
        fop=fop,
    )


def _with_folds(stored: Stored, names: Iterable[str], folds: Mapping[str, Fold]) -> LazyTensors:
    """The stored tensors in their new order, and behind them the weights put together from several of them."""
    from curvlab.checkpoints.stored import LazyTensors

    return LazyTensors(
        {
            name: partial(_folded, stored.tensors, folds[name]) if name in folds else stored.tensors.reader(name)
            for name in names
        }
    )


def _folded(tensors: Mapping[str, Tensor], fold: Fold) -> Tensor:
    return fold.compute(*(tensors[source] for source in fold.sources))
