"""`curvlab.load`: detect the format, read it safely, infer its layers, build its network where that is possible."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from curvlab.checkpoints.checkpoint import Checkpoint
from curvlab.checkpoints.formats import FORMATS
from curvlab.checkpoints.names import natural_key, without_wrappers
from curvlab.checkpoints.quoting import listed, quoted, reason
from curvlab.errors import CheckpointError, MemoryBudgetError, out_of_memory

if TYPE_CHECKING:
    from torch import Tensor, nn

    from curvlab.checkpoints.architecture import Architecture
    from curvlab.checkpoints.fold import Fold
    from curvlab.checkpoints.fop_matrices import FopMatrices
    from curvlab.checkpoints.stored import LazyTensors, Stored

_DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

READERS = {
    "safetensors": "safetensors_file:read_safetensors",
    "safetensors-sharded": "sharded:read_sharded",
    "torch-zip": "torch_file:read_torch_zip",
    "torch-legacy": "torch_file:read_torch_legacy",
    "pickle": "refused_pickle:read_bare_pickle",
    "torchscript": "torchscript_file:read_torchscript",
    "pt2": "pt2_file:read_pt2",
    "huggingface": "model_directory:read_huggingface",
    "timm": "model_directory:read_timm",
    "onnx": "onnx_file:read_onnx",
    "keras": "keras_file:read_keras",
    "hdf5": "hdf5_file:read_hdf5",
}
"""Format -> `read(path, max_memory) -> Stored`, imported when a file is of that format; none runs code of the file."""

NETWORKS = {
    "huggingface": "huggingface_network:huggingface_network",
    "timm": "timm_network:timm_network",
    "onnx": "onnx_network:onnx_network",
    "keras": "keras_network:keras_network",
    "hdf5": "keras_network:keras_network",
}
"""Format -> `build(path, stored, max_memory) -> Network`, where the file describes its network as data."""

TRUSTED_NETWORKS = {
    "torchscript": "torchscript_network:torchscript_network",
    "pt2": "exported_network:exported_network",
}
"""The same for formats whose network is code of the file's own: only with `trust`."""


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

    No code from the file is run unless it is trusted. Tensors are read when asked for.

    Args:
        path: a model file, an `*.index.json`, a directory of Hugging Face, timm or a training run.
        architecture: `"package.module:callable"`, or a callable without arguments, that makes the network; `"hf"` for
            the config.json beside the weights, `"timm:NAME"` for a network of timm.
        trust: run the code of a TorchScript or torch.export archive, or the callable that a curvlab file names.
        max_memory: bytes that loading, and reading the largest tensor, may take; None for what the file itself
            warrants.

    Raises:
        CheckpointError: one sentence on what the file is, why it cannot be read, and what to do.
        MemoryBudgetError: a tensor, or the network, needs more than `max_memory`.
    """
    from curvlab.checkpoints.fop_matrices import without_fop_matrices

    path = Path(path)
    try:
        path, opened = _model_in(path)
        stored = _read(path, max_memory)
        stored = replace(stored, notes=(*opened, *stored.notes))
        _check_budget(path, stored, max_memory)
        stored, fop = without_fop_matrices(stored)
        stored, fop = _renamed(path, stored, fop)
        network = _network(path, stored, architecture, trust, max_memory)
        return _checkpoint(path, _ordered(stored, network.module), network, fop)
    except OSError as error:
        raise CheckpointError(f"{quoted(path)} cannot be read", reason(error)) from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        do = "close other programs, or use a machine with more memory"
        raise CheckpointError(f"{quoted(path)} cannot be loaded", "there is not enough memory", do) from error


def _model_in(path: Path) -> tuple[Path, tuple[str, ...]]:
    """The model of a directory that `curvlab train` wrote, or the only one of a directory; any other path is itself."""
    from curvlab.checkpoints.detect import only_model
    from curvlab.checkpoints.paths import existing, stays_inside

    model = path / "model.safetensors"
    if existing(path).is_dir() and (path / "metrics.jsonl").is_file() and model.is_file():
        return stays_inside(model, path), ()
    only = only_model(path)
    return (path, ()) if only is None else (only, (f"opened {quoted(only.name)}, the only model file of the folder",))


def _read(path: Path, max_memory: int | None) -> Stored:
    from curvlab.checkpoints.detect import detect

    name = detect(path)
    if name not in READERS:
        found = FORMATS[name]
        raise CheckpointError(f"{quoted(path)} is {found.what}", "curvlab cannot read it", found.needs)
    stored: Stored = _named(READERS[name])(path, max_memory)
    if not stored.specs:
        raise CheckpointError(f"{quoted(path)} holds no tensors", do="give a file with the weights of a network")
    return stored


def _named(entry: str) -> Callable[..., Any]:
    """The function of an entry `"module:function"` of the tables above."""
    module, _, function = entry.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(f"curvlab.checkpoints.{module}"), function)
    return found


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

    if architecture is None:
        own = _own_network(path, stored, trust, max_memory)
        if isinstance(own, Network):
            return own
        architecture = own
    if architecture == "hf":
        return _required(_named(NETWORKS["huggingface"])(path, stored, max_memory))
    if isinstance(architecture, str) and architecture.startswith("timm:"):
        from curvlab.checkpoints.timm_network import by_name

        return by_name(path, stored, architecture.removeprefix("timm:"), max_memory)
    module = load_weights(path, build_architecture(architecture), stored.tensors, stored.aliases)
    return Network(module, describe_architecture(architecture))


def _own_network(path: Path, stored: Stored, trust: bool, max_memory: int | None) -> Network | str:
    """What the file itself gives: a network, none with the reason, or the name of the code that makes it."""
    from curvlab.checkpoints.own import recorded_module

    if stored.format in NETWORKS:
        made: Network = _named(NETWORKS[stored.format])(path, stored, max_memory)
        return made
    if stored.format in TRUSTED_NETWORKS:
        if trust:
            run: Callable[..., Network] = _named(TRUSTED_NETWORKS[stored.format])
            return run(path, stored, max_memory)
        what = FORMATS[stored.format].what
        return Network(notes=(f"the network of {what} is code in the file: --trust runs it, for a full profile",))
    if stored.format != "curvlab":
        return Network(
            notes=("the file holds weights only: --architecture package.module:callable gives a full profile",)
        )
    recorded = recorded_module(path, stored, max_memory)
    if recorded.module is not None:
        return Network(recorded.module, "curvlab metadata")
    if recorded.callable is None:
        return Network(
            notes=(f"{recorded.note or ''}: give --architecture package.module:callable for a full profile",)
        )
    if trust:
        return recorded.callable
    name = quoted(recorded.callable)
    return Network(notes=(f"the file names the code that makes its network: give --architecture {name} to run it",))


def _required(network: Network) -> Network:
    """A network that was asked for by name must come about."""
    if network.module is None:
        raise CheckpointError("; ".join(network.notes), do="give --architecture package.module:callable instead")
    return network


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
