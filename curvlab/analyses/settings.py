"""Settings: every choice of an analysis as one frozen value, checked when it is made."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from curvlab.conditions import Device, DtypeName, Globs, LossName, MaxMemory, Seed
from curvlab.field_types import FROM_ONE
from curvlab.fields import Declared, Setting, fields_of

FisherType = Literal["type-2", "mc", "empirical", "forward-only"]
KfacApprox = Literal["expand", "reduce"]
Statistic = Literal["per-example", "batch"]


def _unwritable(path: str) -> str | None:
    """What is wrong with a file's name: told before the work, and not after it."""
    file = Path(path)
    return None if file.name and file.parent.is_dir() and not file.is_dir() else "a file in a folder that exists"


def _unknown(analyses: tuple[str, ...]) -> str | None:
    """What is wrong with names of analyses, for `Setting.check`. Analyses are imported late here and below: they import
    torch, which `--help` must not wait for."""
    from curvlab.analyses.registry import ANALYSES

    unknown = [name for name in analyses if name not in ANALYSES]
    if not unknown:
        return None
    return f"all known: there is no {', '.join(map(repr, unknown))}; {ANALYSES.instead(unknown[0])}"


@dataclass(frozen=True)
class Settings(Declared):
    """How an analysis is done; the defaults are those of `curvlab analyze`.

    Raises:
        CommandError: naming every wrong value at once.
    """

    loss: Annotated[
        LossName,
        Setting(
            "The loss the model was trained with; auto is what the file, the kind of network and the targets say; "
            "next-token has the inputs themselves as targets, moved by one position."
        ),
    ] = "auto"
    fisher_type: Annotated[
        FisherType,
        Setting("Whose gradients: of all targets (type-2), of drawn ones (mc), of the data's own, or none."),
    ] = "mc"
    mc_samples: Annotated[
        int, Setting("Targets drawn per example for mc.", FROM_ONE, when={"fisher_type": ("mc",)})
    ] = 1
    kfac_approx: Annotated[KfacApprox, Setting("How positions that share weights are treated.")] = "expand"
    statistic: Annotated[
        Statistic,
        Setting(
            "What tensor-normal factors are made of: each example's gradient, or the batch mean's.",
            when={"fisher_type": ("type-2", "mc", "empirical")},
        ),
    ] = "per-example"
    analyses: Annotated[
        tuple[str, ...] | None,
        Setting(
            "Some of `curvlab list analyses`, with commas between; those that are done by default without.",
            check=_unknown,
            written="NAMES",
        ),
    ] = None
    factors: Annotated[
        str | None,
        Setting(
            "Write moments, K-FAC factors and the Fisher's diagonal of every layer to a file.",
            check=_unwritable,
            written="FILE",
        ),
    ] = None
    eigenbases: Annotated[bool, Setting("With `--factors`: the eigenvectors of both K-FAC factors too.")] = False
    factors_from: Annotated[
        str | None, Setting("Continue from a file that `--factors` has written, without data.", written="FILE")
    ] = None
    samples: Annotated[
        int | None,
        Setting(
            "Draw this many examples (of text, its first sequences); all, or of text 4096 tokens, without.", FROM_ONE
        ),
    ] = None
    sequence_length: Annotated[
        int | None,
        Setting("Tokens of a sequence that text is cut into; 128 without, or as many as the model takes.", FROM_ONE),
    ] = None
    batch_size: Annotated[
        int | None, Setting("Examples per forward pass; chosen from the memory budget without.", FROM_ONE)
    ] = None
    layers: Globs = ()
    dtype: Annotated[DtypeName, Setting("Type of the model's passes; spectra are always float64.")] = "float32"
    device: Device = "auto"
    max_memory: MaxMemory = None
    seed: Annotated[Seed, Setting("Seed of every random draw.")] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.analyses is not None:
            from curvlab.analyses.registry import names

            asked = {*self.analyses, *_asked(vars(self))}
            ordered = tuple(name for name in names() if name in asked)
            object.__setattr__(self, "analyses", ordered)

    @classmethod
    def wrong_together(cls, sound: Mapping[str, Any], given: Collection[str]) -> Iterator[str]:
        """See `Declared`."""
        if sound.get("factors") is not None and sound.get("factors_from") is not None:
            yield "factors_from has no data, and factors are made of data: leave out one of them"
        analyses = sound.get("analyses")
        if sound.get("eigenbases") and sound.get("factors") is None and "factors" not in (analyses or ()):
            yield "eigenbases has an effect on factors only, and none are asked for"
        if analyses is None:
            return
        if not analyses:
            yield "analyses is empty, name at least one of 'curvlab list analyses'"
            return
        for name, readers in readers_of(chosen(sound)).items():
            if not set(readers) & {*analyses, *_asked(sound)}:
                yield f"{name} has an effect on {', '.join(readers)} only, and analyses has none of them"


def _asked(values: Mapping[str, Any]) -> list[str]:
    """The analyses that other settings ask for."""
    from curvlab.analyses.registry import definitions

    return [one.name for one in definitions() if one.asked_by and values.get(one.asked_by) is not None]


def readers_of(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Field -> the analyses it has an effect on, for those of these fields that are about some analyses only."""
    from curvlab.analyses.registry import definitions

    found = {name: tuple(one.name for one in definitions() if name in one.settings_read()) for name in names}
    return {name: readers for name, readers in found.items() if readers}


def chosen(values: Mapping[str, Any]) -> list[str]:
    """Names of the values that are not their defaults."""
    return [name for name, field in fields_of(Settings).items() if name in values and values[name] != field.default]
