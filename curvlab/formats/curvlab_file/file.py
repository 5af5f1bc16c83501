"""curvlab's own files: safetensors whose metadata says how to make the network, as data and never as code.

| metadata key | holds |
|---|---|
| `curvlab.format` | `"1"` |
| `curvlab.architecture` | JSON: a description (see `describe`), the name of a registered builder, or of a callable |
| `curvlab.data` | the dataset the network was trained on |
| `curvlab.likelihood` | `"categorical"`, `"bernoulli"` or `"gaussian"` |
| `curvlab.fop` | what the tensors `curvlab.fop.<parameter>` mean (see `fop_matrices`), where FOP trained the network |
| name of a tensor left out | name of the stored tensor with the same weights (tied weights) |
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from curvlab.errors import CheckpointError, MemoryBudgetError
from curvlab.formats import strict_json
from curvlab.formats.curvlab_file.builders import UnknownBuilder
from curvlab.formats.curvlab_file.describe import GIVE_ARCHITECTURE, VERSION, Description, build, describe
from curvlab.formats.curvlab_file.fop_matrices import FopMatrices, misfit
from curvlab.formats.curvlab_file.metadata_order import sort_metadata
from curvlab.formats.curvlab_file.stored_fop import without_fop_matrices
from curvlab.formats.format import Network
from curvlab.formats.raw_checkpoint import RawCheckpoint, check_budget
from curvlab.formats.safetensors.file import read_safetensors
from curvlab.formats.whole_file import whole_file
from curvlab.quoting import listed, quoted

FORMAT, ARCHITECTURE, DATA, LIKELIHOOD = "curvlab.format", "curvlab.architecture", "curvlab.data", "curvlab.likelihood"
_DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
LIKELIHOODS = frozenset({"categorical", "bernoulli", "gaussian"})


def save(
    path: str | os.PathLike[str],
    module: nn.Module,
    *,
    architecture: str | Description | None = None,
    data: str | None = None,
    likelihood: str | None = None,
    fop: FopMatrices | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a network so that `load(path)` gives it back, weights, ties and structure, with no further options.

    The file appears complete or not at all: it is written beside `path`, flushed to disk, then renamed.

    Args:
        path: the file to write; `.safetensors` by custom.
        module: its parameters and buffers are stored as they are, whatever their device.
        architecture: None describes `module` itself; `{"builder": name, "arguments": {...}}` names a registered
            builder; `"package.module:callable"` names code, which loading runs only when the user asks for it.
        data: name of the dataset.
        likelihood: "categorical", "bernoulli" or "gaussian".
        fop: FOP's learned matrices, `fop_matrices(optimizer.matrices, optimizer.forms)`, stored beside the weights.
        metadata: further strings, under names that do not begin with "curvlab."; none may be the name of a tensor.

    Raises:
        CheckpointError: the module cannot be described, the matrices are not of its parameters, or the file cannot be
            written.
    """
    path = Path(path)
    if not path.name:
        raise CheckpointError(f"{quoted(path)} is no file name")
    if likelihood is not None and likelihood not in LIKELIHOODS:
        raise CheckpointError(f"{quoted(likelihood)} is no likelihood", f"known are {listed(sorted(LIKELIHOODS))}")
    reserved = [key for key in metadata or {} if key.startswith("curvlab.")]
    if reserved:
        raise CheckpointError(f"metadata may not be named {listed(reserved)}", "those names are curvlab's own")
    description = _description(module, architecture)
    tensors, tied = _untied(module)
    if fop is not None:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for name, m in fop.factors.items():
            if why := misfit(shapes.get(tied.get(name, name)), tuple(m.shape), str(m.dtype), fop.forms[name]):
                raise CheckpointError(f"the FOP matrix of {quoted(name)} cannot be stored beside this network", why)
        tensors |= fop.tensors()
    misleading = [value for value in (metadata or {}).values() if value in tensors]
    if misleading:
        raise CheckpointError(f"metadata may not be {listed(misleading)}", "that would read as a tied weight")
    header = {**(metadata or {}), **tied, FORMAT: "1", ARCHITECTURE: json.dumps(description, allow_nan=False)}
    header |= {key: value for key, value in ((DATA, data), (LIKELIHOOD, likelihood)) if value is not None}
    header |= {} if fop is None else fop.metadata()
    _write(path, tensors, header)


def read_curvlab_file(path: Path, max_memory: int | None = None) -> RawCheckpoint:
    """The tensors of a curvlab file, and what it records of them; one without `curvlab.format` is plain safetensors,
    which may hold FOP's matrices all the same.

    Raises:
        CheckpointError: as `read_safetensors`, or FOP matrices that do not fit the weights.
        MemoryBudgetError: a tensor takes more than `max_memory`.
    """
    raw = read_safetensors(path, max_memory)
    check_budget(path, raw, max_memory)
    raw = without_fop_matrices(raw)
    if not raw.specs:
        raise CheckpointError(f"{quoted(path)} holds no weights", do="give a file with the weights of a network")
    if raw.metadata.get(FORMAT) != "1":
        return raw
    data, likelihood = (raw.metadata.get(key) for key in (DATA, LIKELIHOOD))
    notes = raw.notes
    if data is not None and not _DATASET_NAME.fullmatch(data):
        # An untrusted file must not make an analysis open another file.
        notes += (f"the file was trained on {quoted(data)}, which is no dataset name: give --data to use it",)
        data = None
    known = likelihood if likelihood in LIKELIHOODS else None
    return replace(raw, format="curvlab", data=data, likelihood=known, notes=notes)


def recorded_network(path: Path, raw: RawCheckpoint, max_memory: int | None) -> Network:
    """The network that the file describes, filled and in eval mode; code it names is reported, not run.

    Nothing is allocated before the description's shapes are known to be exactly those of the stored tensors.

    Raises:
        CheckpointError: the description is not valid or does not match the tensors.
        MemoryBudgetError: the weights need more than `max_memory`.
    """
    if ARCHITECTURE not in raw.metadata:
        return _without("the file records no architecture")
    try:
        description = strict_json.parse(raw.metadata[ARCHITECTURE])
    except ValueError as error:
        raise CheckpointError(f"{quoted(path)} records an architecture that cannot be read", str(error)) from None
    if isinstance(description, dict) and isinstance(description.get("callable"), str):
        return Network(code=description["callable"])
    needed = sum(spec.stored_bytes for spec in raw.specs.values())
    if max_memory is not None and needed > max_memory:
        raise MemoryBudgetError(
            f"the network in {quoted(path)} needs {needed} bytes", f"--max-memory allows {max_memory}"
        )
    try:
        with torch.device("meta"):
            module = build(description)
    except UnknownBuilder as error:
        return _without(str(error))
    _check_matches(path, module, raw)
    if "builder" in description:
        # What is not stored (buffers that are not persistent) exists only if the network is made in earnest.
        with torch.random.fork_rng(devices=[]):
            module = build(description)
    module.load_state_dict(
        {name: raw.tensors[raw.aliases.get(name, name)] for name in module.state_dict()}, assign=True
    )
    for name, kept in raw.aliases.items():
        _tie(module, name, kept)
    return Network(module.eval(), "curvlab metadata")


def _without(why: str) -> Network:
    return Network(notes=(f"{why}: give --architecture package.module:callable for a full profile",))


def _description(module: nn.Module, architecture: str | Description | None) -> Description:
    if isinstance(architecture, str):
        return {"version": VERSION, "callable": architecture}
    description = describe(module) if architecture is None else {"version": VERSION, **architecture}
    # Parametrisations, pruning and the like change a module's tensors behind its constructor.
    with torch.device("meta"):
        again = build(description)
    ours, theirs = _shapes(module), _shapes(again)
    if ours != theirs:
        different = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
        raise CheckpointError(
            f"the tensors {listed(sorted(different))} are not those that the recorded architecture makes",
            "a parametrised or altered layer cannot be recorded",
            'remove the parametrisation, or give architecture="package.module:callable"',
        )
    return description


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _untied(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors to store, one name for each, and second name -> stored name."""
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        kept = first.setdefault(id(tensor), name)
        if kept != name:
            tied[name] = kept
        else:
            # Views of one storage are legal in a module but not in the file: each becomes a tensor of its own.
            tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return tensors, tied


def _check_matches(path: Path, module: nn.Module, stored: RawCheckpoint) -> None:
    known = {**stored.specs, **{alias: stored.specs[kept] for alias, kept in stored.aliases.items()}}
    shapes = _shapes(module)
    different = [
        name for name in shapes.keys() | known.keys() if name not in known or shapes.get(name) != known[name].shape
    ]
    if different:
        raise CheckpointError(
            f"{quoted(path)} records an architecture that does not fit its tensors",
            f"they differ in {listed(sorted(different))}",
            GIVE_ARCHITECTURE,
        )


def _tie(module: nn.Module, name: str, kept: str) -> None:
    """Makes `name` the same parameter as `kept` again."""
    (owner, role), (other, source) = (_owner(module, path) for path in (name, kept))
    setattr(owner, role, getattr(other, source))


def _owner(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    layer, _, role = path.rpartition(".")
    return module.get_submodule(layer), role


def _write(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    with whole_file(path) as beside:
        save_file(tensors, beside, header)
        sort_metadata(beside)
