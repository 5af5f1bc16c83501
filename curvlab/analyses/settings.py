"""Settings: every choice of an analysis as one frozen value, checked when it is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from curvlab.errors import CommandError

Loss = Literal["auto", "cross-entropy", "bce", "mse"]
FisherType = Literal["type-2", "mc", "empirical", "forward-only"]
KfacApprox = Literal["expand", "reduce"]
Statistic = Literal["per-example", "batch"]
Dtype = Literal["float32", "float64"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
AnalysisName = Literal["weights", "moments", "kfac", "tnt", "fop"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "loss": get_args(Loss),
    "fisher_type": get_args(FisherType),
    "kfac_approx": get_args(KfacApprox),
    "statistic": get_args(Statistic),
    "dtype": get_args(Dtype),
}
_COUNTS = {"mc_samples": False, "samples": True, "batch_size": True, "max_memory": True}
_SEED_LIMIT = 2**63


@dataclass(frozen=True)
class Settings:
    """How an analysis is done; the defaults are those of `curvlab analyze`.

    Attributes:
        loss: "cross-entropy" (categorical), "bce" (bernoulli), "mse" (gaussian), or "auto": what the file and the
            targets say.
        fisher_type: where the pseudo-gradients come from (docs/curvature.md).
        mc_samples: pseudo-targets drawn per example when `fisher_type` is "mc".
        kfac_approx: "expand" or "reduce" for weights shared over positions.
        statistic: what a tensor-normal contraction is made of: each example's gradient, or the batch mean's.
        analyses: names of `AnalysisName`, in that order and without repeats; None = all that the inputs allow.
        samples: how many examples to use, drawn with `seed`; None = all.
        batch_size: examples per forward pass; None = chosen from the memory budget.
        layers: glob patterns of layer names; empty = every layer.
        dtype: of the forward and backward passes; spectra are always float64.
        device: "auto", or a torch device name such as "cpu", "cuda:1", "mps".
        max_memory: bytes; None = no limit.
        seed: of everything random.

    Raises:
        CommandError: naming every wrong value at once.
    """

    loss: str = "auto"
    fisher_type: str = "mc"
    mc_samples: int = 1
    kfac_approx: str = "expand"
    statistic: str = "per-example"
    analyses: tuple[str, ...] | None = None
    samples: int | None = None
    batch_size: int | None = None
    layers: tuple[str, ...] = ()
    dtype: str = "float32"
    device: str = "auto"
    max_memory: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        problems = [*self._wrong_choices(), *self._wrong_counts(), *self._wrong_names()]
        if problems:
            raise CommandError("; ".join(problems))
        if self.analyses is not None:
            ordered = tuple(name for name in get_args(AnalysisName) if name in self.analyses)
            object.__setattr__(self, "analyses", ordered)
        object.__setattr__(self, "layers", tuple(self.layers))

    def to_dict(self) -> dict[str, Any]:
        """The settings as the JSON contract records them: plain values, lists for tuples."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def _wrong_choices(self) -> Iterable[str]:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                yield f"{name} is {value!r}, not one of {', '.join(choices)}"
        family, _, index = str(self.device).partition(":")
        if family not in get_args(DeviceName) or (":" in str(self.device) and not index.isdecimal()):
            yield f"device is {self.device!r}, not one of {', '.join(get_args(DeviceName))} (or cuda:1)"

    def _wrong_counts(self) -> Iterable[str]:
        for name, optional in _COUNTS.items():
            value = getattr(self, name)
            if optional and value is None:
                continue
            if not _is_whole(value) or value < 1:
                yield f"{name} is {value!r}, not a whole number above 0"
        if not _is_whole(self.seed) or not 0 <= self.seed < _SEED_LIMIT:
            yield f"seed is {self.seed!r}, not a whole number from 0 to 2^63 - 1"

    def _wrong_names(self) -> Iterable[str]:
        known = get_args(AnalysisName)
        values: tuple[object, ...] = (self.analyses, self.layers)
        if any(isinstance(value, str) for value in values):
            yield "analyses and layers are sequences of names, not one string"
            return
        if self.analyses is not None:
            unknown = [str(name) for name in self.analyses if name not in known]
            if unknown:
                yield f"analyses has {', '.join(map(repr, unknown))}, not among {', '.join(known)}"
            elif not self.analyses:
                yield f"analyses is empty, name at least one of {', '.join(known)}"
        if not all(isinstance(pattern, str) and pattern for pattern in self.layers):
            yield "layers has an empty pattern"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
