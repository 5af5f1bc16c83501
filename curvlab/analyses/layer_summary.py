"""The layers of a model by the pattern of their names: how each number lies among them, and which layer is worst."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curvlab.analyses.name_patterns import by_pattern
from curvlab.analyses.question import Question
from curvlab.analyses.ranking import Rank
from curvlab.analyses.registry import layer_analyses

if TYPE_CHECKING:
    from curvlab.analyses.results import LayerResult


@dataclass(frozen=True)
class Asked:
    """A question of one analysis.

    Attributes:
        analysis: its name.
        question: the number.
    """

    analysis: str
    question: Question

    @property
    def key(self) -> str:
        """How the JSON calls it."""
        return f"{self.analysis}.{self.question.key}"

    def value(self, layer: LayerResult) -> float | None:
        """The layer's number; None where it has none."""
        result = layer.results.get(self.analysis)
        return None if result is None else self.question.value(result)

    def text(self, layer: LayerResult) -> str:
        """The layer's number as a person reads it; it has one."""
        return self.question.text(layer.results[self.analysis])

    def rank(self, layer: LayerResult) -> Rank | None:
        """The larger, the worse; None where there is no number."""
        result = layer.results.get(self.analysis)
        return None if result is None else self.question.rank(result)

    def worst(self, layers: Sequence[LayerResult], count: int = 1) -> list[LayerResult]:
        """The worst layers, the worst of all first, equally bad ones in the model's order."""
        ranked = [(rank, layer) for layer in layers if (rank := self.rank(layer)) is not None]
        ranked.sort(key=lambda pair: pair[0], reverse=True)
        return [layer for _, layer in ranked[:count]]

    def median(self, layers: Sequence[LayerResult]) -> float | None:
        """The median of the numbers that there are, infinite ones included."""
        known = [value for layer in layers if (value := self.value(layer)) is not None]
        return statistics.median(known) if known else None


@dataclass(frozen=True)
class PatternSummary:
    """Layers whose names differ in numbers alone.

    Attributes:
        pattern: of their names; the name itself of a layer that is alone.
        layers: in the model's order.
    """

    pattern: str
    layers: tuple[LayerResult, ...]

    @property
    def parameters(self) -> int:
        """How many all of them have."""
        return sum(layer.parameters for layer in self.layers)

    def to_dict(self, asked: Sequence[Asked]) -> dict[str, Any]:
        """The entry of the JSON's `summary`: for every number its median, the worst one and the layer that has it."""
        numbers = {one.key: found for one in asked if (found := _numbers(one, self.layers)) is not None}
        kinds = list(dict.fromkeys(layer.kind for layer in self.layers))
        facts = {"pattern": self.pattern, "kinds": kinds, "layers": len(self.layers), "parameters": self.parameters}
        return {**facts, "quantities": numbers}


def asked_of(layers: Sequence[LayerResult]) -> tuple[Asked, ...]:
    """The questions that some layer answers, in the order of the analyses."""
    everything = (Asked(one.name, question) for one in layer_analyses() for question in one.questions)
    return tuple(one for one in everything if any(one.rank(layer) is not None for layer in layers))


def summaries(layers: Sequence[LayerResult]) -> tuple[PatternSummary, ...]:
    """The layers by pattern, in the order of their first ones."""
    groups = by_pattern([layer.name for layer in layers], [layer.kind for layer in layers])
    return tuple(PatternSummary(name, tuple(layers[i] for i in places)) for name, places in groups.items())


def summary_entries(layers: Sequence[LayerResult]) -> Iterator[dict[str, Any]]:
    """The JSON's `summary`."""
    asked = asked_of(layers)
    yield from (one.to_dict(asked) for one in summaries(layers))


def _numbers(asked: Asked, layers: Sequence[LayerResult]) -> dict[str, Any] | None:
    worst = asked.worst(layers)
    if not worst:
        return None
    values = [asked.value(layer) for layer in layers]
    return {
        "median": asked.median(layers),
        "worst": asked.value(worst[0]),
        "layer": worst[0].name,
        "infinite": sum(value == math.inf for value in values),
        "missing": sum(value is None for value in values),
    }
