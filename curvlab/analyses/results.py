"""The frozen results of an analysis: what every report renders and what the JSON contract `curvlab.analysis/1` holds.

A number that does not exist (infinite condition number, too little data) is None, never NaN. The results of each
analysis are a dataclass in its own file.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from curvlab.analyses.layer_summary import summary_entries
from curvlab.analyses.registry import layer_analyses, model_analyses
from curvlab.document.json import plain

SCHEMA = "curvlab.analysis/1"
PROMISED = ("hessian",)
"""Keys of the contract that no analysis fills yet: null."""


@dataclass(frozen=True)
class LayerResult:
    """Everything known about one layer. `layer.moments` is the result of the analysis `moments`, and None where that
    was not possible, for the reason in the coverage, or was not asked for.

    `evidence` says what `kind` was inferred from, with that `confidence`, where it was not known; `results` maps names
    of analyses to what they found.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    confidence: float
    evidence: str | None = None
    results: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        results = self.__dict__.get("results", {})
        if name in results:
            return results[name]
        if not name.startswith("_") and any(one.name == name for one in layer_analyses()):
            return None
        raise AttributeError(f"a layer has no {name!r}; its analyses are {', '.join(results) or 'none'}")

    def having(self, **results: Any) -> LayerResult:
        """The layer with other results of some analyses; None takes one away."""
        found = {**self.results, **results}
        return replace(self, results={name: result for name, result in found.items() if result is not None})

    def facts(self) -> dict[str, Any]:
        """All that is no result of an analysis, as plain values."""
        values: dict[str, Any] = plain({**self.__dict__, "results": None})
        del values["results"]
        return values


@dataclass(frozen=True)
class BlockCoverage:
    """How far one block of parameters got: "analyzed", "weights-only", "fallback" or "skipped", and why."""

    name: str
    status: str
    reason: str | None
    parameters: int


@dataclass(frozen=True)
class Coverage:
    """How many of the model's parameters the analyses reached, block by block."""

    parameters: int
    analyzed: int
    blocks: tuple[BlockCoverage, ...]


@dataclass(frozen=True)
class Analysis:
    """The result of `curvlab.analyze`: a mapping from layer name to `LayerResult`, with provenance and coverage.

    `results` maps names of analyses of the whole model to their rows; `analysis.fop` is `results["fop"]`, and empty
    where there is nothing.
    """

    command: tuple[str, ...]
    seed: int
    environment: Mapping[str, Any]
    model: Mapping[str, Any]
    data: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    coverage: Coverage
    layers: tuple[LayerResult, ...]
    notes: tuple[str, ...] = ()
    results: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> LayerResult:
        """The layer called `name`; a KeyError names the layers there are."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer {name!r}; there are: {', '.join(layer.name for layer in self.layers)}")

    def __getattr__(self, name: str) -> Any:
        results = self.__dict__.get("results", {})
        if name in results:
            return results[name]
        if not name.startswith("_") and any(one.name == name for one in model_analyses()):
            return ()
        raise AttributeError(f"an analysis has no {name!r}")

    def having(self, **results: tuple[Any, ...]) -> Analysis:
        """The analysis with other rows of analyses of the whole model."""
        return replace(self, results={**self.results, **results})

    def to_dict(self) -> dict[str, Any]:
        """This analysis as the JSON contract `curvlab.analysis/1`.

        An analysis that is done by default has its key always, null or empty where it found nothing; another where it
        was done.
        """
        kept = [one.name for one in layer_analyses() if one.by_default]
        sections = tuple(dict.fromkeys((*kept, *_found(layer.results for layer in self.layers))))
        rows = tuple(one.name for one in model_analyses() if one.by_default or one.name in self.results)
        facts = ("command", "seed", "environment", "model", "data", "settings", "coverage")
        return {
            "schema": SCHEMA,
            "curvlab": importlib.metadata.version("curvlab"),
            **{key: plain(getattr(self, key)) for key in facts},
            "layers": [
                {**layer.facts(), **{name: plain(layer.results.get(name)) for name in sections}}
                for layer in self.layers
            ],
            "summary": plain(list(summary_entries(self.layers))),
            **{name: plain(self.results.get(name, ())) for name in rows},
            **dict.fromkeys(PROMISED),
            "notes": plain(self.notes),
        }


def _found(results: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """The names of all that found something, in the order of the registry."""
    names = {name for one in results for name in one}
    return (one.name for one in layer_analyses() if one.name in names)
