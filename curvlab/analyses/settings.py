"""Settings: every choice of an analysis as one frozen value, checked when it is made."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from curvlab.conditions import Device, DtypeName, Globs, LossName, MaxMemory, Seed
from curvlab.fields import FROM_ONE, Declared, Setting, fields_of

FisherType = Literal["type-2", "mc", "empirical", "forward-only"]
KfacApprox = Literal["expand", "reduce"]
Statistic = Literal["per-example", "batch"]
AnalysisName = Literal["weights", "moments", "kfac", "tnt", "fop"]

NEEDED_BY: Mapping[str, tuple[AnalysisName, ...]] = {
    "fisher_type": ("kfac", "tnt"),
    "mc_samples": ("kfac", "tnt"),
    "kfac_approx": ("kfac",),
    "statistic": ("tnt",),
    "loss": ("kfac", "tnt", "fop"),
    "dtype": ("moments", "kfac", "tnt", "fop"),
    "samples": ("moments", "kfac", "tnt", "fop"),
    "batch_size": ("moments", "kfac", "tnt", "fop"),
}
"""Which analyses a choice is about; beside others it has no effect."""


@dataclass(frozen=True)
class Settings(Declared):
    """How an analysis is done; the defaults are those of `curvlab analyze`.

    Raises:
        CommandError: naming every wrong value at once.
    """

    loss: Annotated[
        LossName,
        Setting("The loss the model was trained with; auto is what the file and the targets say."),
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
        tuple[AnalysisName, ...] | None,
        Setting(f"Some of {','.join(get_args(AnalysisName))}; all that can be done without.", written="NAMES"),
    ] = None
    samples: Annotated[int | None, Setting("Draw this many examples; all without.", FROM_ONE)] = None
    batch_size: Annotated[
        int | None, Setting("Examples per forward pass; chosen from the memory budget without.", FROM_ONE)
    ] = None
    layers: Globs = ()
    dtype: Annotated[DtypeName, Setting("Of the passes; spectra are always float64.")] = "float32"
    device: Device = "auto"
    max_memory: MaxMemory = None
    seed: Annotated[Seed, Setting("Of everything random.")] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.analyses is not None:
            ordered = tuple(name for name in get_args(AnalysisName) if name in self.analyses)
            object.__setattr__(self, "analyses", ordered)

    @classmethod
    def wrong_together(cls, sound: Mapping[str, Any], given: Collection[str]) -> Iterator[str]:
        """See `Declared`."""
        analyses = sound.get("analyses")
        if analyses is None:
            return
        if not analyses:
            yield f"analyses is empty, name at least one of {', '.join(get_args(AnalysisName))}"
        for name in chosen(sound):
            if analyses and not set(NEEDED_BY.get(name, analyses)) & set(analyses):
                yield f"{name} has an effect on {', '.join(NEEDED_BY[name])} only, and analyses has none of them"


def chosen(values: Mapping[str, Any]) -> list[str]:
    """Names of the values that are not their defaults."""
    return [name for name, field in fields_of(Settings).items() if name in values and values[name] != field.default]
