"""Comparison: what a comparison found, frozen; `to_dict` is the contract `curvlab.comparison/1`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from curvlab.comparison.agreement import Agreement, Number
from curvlab.document.json import plain

if TYPE_CHECKING:
    from curvlab.comparison.race_results import Races

SCHEMA = "curvlab.comparison/1"


@dataclass(frozen=True)
class Directions:
    """One optimizer's directions beside the baseline's.

    Attributes:
        optimizer: its name; its label is the key it is under.
        settings: all of them, as they were used.
        agreements: one per measured step.
        coverage: how parameters are treated -> how many numbers are.
        damping: by value of the damping, the mean cosine and that of each layer; empty without a sweep.
    """

    optimizer: str
    settings: Mapping[str, Any]
    agreements: tuple[Agreement, ...]
    coverage: Mapping[str, int] = field(default_factory=dict)
    damping: tuple[Mapping[str, Any], ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """In the model's order."""
        return tuple(self.agreements[0].cosine) if self.agreements else ()

    @property
    def cosine(self) -> dict[str, list[Number]]:
        """Layer -> the cosine at every measured step."""
        return {layer: [one.cosine[layer] for one in self.agreements] for layer in self.layers}

    @property
    def fisher_cosine(self) -> dict[str, list[Number]]:
        """Layer -> the same in the metric of the block Fisher."""
        return {layer: [one.fisher_cosine[layer] for one in self.agreements] for layer in self.layers}

    @property
    def mean_cosine(self) -> dict[str, Number]:
        """Layer -> mean over the measured steps."""
        return {layer: mean(values) for layer, values in self.cosine.items()}

    @property
    def mean(self) -> Number:
        """Mean of `mean_cosine` over the layers."""
        return mean(list(self.mean_cosine.values()))

    @property
    def mean_whole(self) -> Number:
        """Mean over the steps of the cosine over all layers as one vector."""
        return mean([one.whole for one in self.agreements])

    @property
    def mean_fisher(self) -> Number:
        """Mean of the Fisher cosines, over steps and then over layers."""
        return mean([mean(values) for values in self.fisher_cosine.values()])

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "optimizer": self.optimizer,
            "settings": dict(self.settings),
            "cosine": self.cosine,
            "mean_cosine": self.mean_cosine,
            "mean": self.mean,
            "cosine_all": [one.whole for one in self.agreements],
            "mean_all": self.mean_whole,
            "fisher_cosine": self.fisher_cosine,
            "mean_fisher_cosine": {layer: mean(values) for layer, values in self.fisher_cosine.items()},
            "mean_fisher": self.mean_fisher,
            "fisher_cosine_all": [one.fisher_whole for one in self.agreements],
            "predicted_decrease": [one.decrease for one in self.agreements],
            "coverage": dict(self.coverage),
            "damping": [dict(point) for point in self.damping],
        }


@dataclass(frozen=True)
class Comparison:
    """Optimizers beside each other.

    Attributes:
        problem: name of the problem, or path of the model.
        baseline: what directions are compared with, e.g. "block-fisher"; None where only races were run.
        steps: how many batches were shown.
        measured: the steps, from 1, at which directions were compared.
        warm_start: whether a trajectory began with a pass over the training set for all averages.
        interval: T2 of all optimizers: steps between renewals of operators.
        damping_at: the steps that a sweep of the damping is a mean over.
        optimizers: label -> its directions, in the order asked for; empty when only races were run.
        reference: the baseline beside itself: its settings, and the decrease the quadratic model promises along it.
        training: races, or None.
        seed: of weights, order and draws.
        hashes: sha256 of the initial weights, and of the data as it was shown.
        data: what the examples are.
        environment: versions and machine.
        notes: sentences for the user.
    """

    problem: str
    baseline: str | None
    steps: int
    measured: tuple[int, ...]
    optimizers: Mapping[str, Directions]
    reference: Directions | None
    seed: int
    hashes: Mapping[str, str]
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    training: Races | None = None
    notes: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    warm_start: bool = False
    interval: int = 1
    damping_at: tuple[int, ...] = ()

    def __getitem__(self, label: str) -> Directions:
        return self.optimizers[label]

    def to_dict(self) -> dict[str, Any]:
        """The contract `curvlab.comparison/1`: plain values, None for numbers that do not exist.

        No times in it (races, which are about time, aside): the same call on the same machine gives the same document.
        """
        document = {
            "schema": SCHEMA,
            "problem": self.problem,
            "baseline": self.baseline,
            "steps": self.steps,
            "measured": self.measured,
            "warm_start": self.warm_start,
            "interval": self.interval,
            "damping_at": self.damping_at,
            "optimizers": {label: one.to_dict() for label, one in self.optimizers.items()},
            "reference": None if self.reference is None else self.reference.to_dict(),
            "seed": self.seed,
            "hashes": self.hashes,
            "data": self.data,
            "environment": self.environment,
            "command": self.command,
            "notes": self.notes,
        }
        made: dict[str, Any] = plain(document)
        if self.training is not None:
            made |= {**self.training.to_dict(), "race": self.training.conditions()}
        return made


def mean(values: Sequence[Number]) -> Number:
    """Mean of the numbers that exist, None without one."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None
