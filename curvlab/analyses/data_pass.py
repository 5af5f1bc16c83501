"""DataPass: one pass over the data, which collects what the chosen analyses need. Only this file knows how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from curvlab.analyses.curvature_pass import CurvaturePass
from curvlab.analyses.layer_data import LayerStatistics
from curvlab.analyses.mean_gradient import Batch, MeanGradient
from curvlab.analyses.needs import Needs
from curvlab.analyses.settings import Settings
from curvlab.analyses.source import Source, moved
from curvlab.capture.survey import LayerBlock, Survey
from curvlab.likelihoods import Likelihood
from curvlab.operators.operator import Operator
from curvlab.statistics.collect import collect
from curvlab.statistics.plan import Collected, Plan


@dataclass
class DataPass:
    """The pass over the data: a copy of the network in eval mode, and what is collected from it.

    Attributes:
        module: the copy.
        source: the data.
        found: the layers that two examples ran through.
        likelihood: ℓ.
        plan: which statistics are collected.
        batch_size: examples per forward pass.
        activations: bytes per example.
        gradient: the mean gradients that are asked for, or None.
        curvatures: registered recipes whose averages are asked for.
    """

    module: nn.Module
    source: Source
    found: Survey
    likelihood: Likelihood
    plan: Plan
    batch_size: int
    activations: int
    gradient: MeanGradient | None = None
    curvatures: tuple[CurvaturePass, ...] = ()


@dataclass(frozen=True)
class Statistics:
    """What a pass collected: over all examples, and over each half of them where there are two."""

    whole: Collected
    halves: tuple[Collected, ...] = ()
    curvatures: Mapping[str, tuple[Mapping[str, Operator], ...]] = field(default_factory=dict)
    """Name of a curvature -> layer -> its operator, of all the data and of each half."""

    def operators(self, layer: str, part: int) -> dict[str, Operator]:
        """Name of a curvature -> its operator of a layer, in part 0 (all the data), 1 or 2 (the halves)."""
        return {
            name: parts[part][layer]
            for name, parts in self.curvatures.items()
            if len(parts) > part and layer in parts[part]
        }


def plan_of(needs: Needs, settings: Settings, source: Source) -> Plan:
    """The statistics that `needs` names, taken as the settings say."""
    return Plan(
        features=needs.features,
        output_gradients=needs.output_gradients,
        kfac_approx=settings.kfac_approx,
        tensors=settings.statistic if needs.tensors else None,
        fisher_type=settings.fisher_type,
        mc_samples=settings.mc_samples,
        dtype=torch.float64,  # ranks, and condition numbers beyond 1e7, are not in a float32 product
        halves=source.samples is None or source.samples > 1,
        keep_rows=True,
    )


def collected(
    run: DataPass, device: torch.device, seed: int, tell: Callable[[int], None]
) -> tuple[Statistics, Mapping[str, str]]:
    """The statistics of all batches, and the layers that could not be recorded with their reasons.

    Args:
        run: the pass.
        device: where the network is.
        seed: of targets that are drawn.
        tell: told how many examples have been seen.
    """
    dtype = next(run.module.parameters()).dtype
    batches: Iterator[Batch] = (moved(batch, device, dtype) for batch in run.source.batches(run.batch_size))
    if run.gradient is not None:
        batches = run.gradient.watching(batches)
    generator = torch.Generator().manual_seed(seed)
    observers = [one.average for one in run.curvatures]
    parts, refused = collect(run.module, run.found, batches, run.likelihood, run.plan, generator, tell, observers)
    run.source.info["samples"] = sum(part.examples for part in parts)
    halves = parts if len(parts) == 2 and all(part.examples for part in parts) else ()
    whole = parts[0].merge(parts[1]) if len(parts) == 2 else parts[0]
    shown = {one.curvature.name: one.operators() for one in run.curvatures}
    return Statistics(whole, halves, shown), {
        name: why for name, why in refused.items() if name not in run.found.refused
    }


def of_layer(block: LayerBlock, part: Collected, curvatures: Mapping[str, Operator] = {}) -> LayerStatistics:
    """What `part` holds of one layer, with the operators of registered curvatures."""
    name = block.name
    tensors = {
        parameter: part.tensors[parameter] for parameter in block.parameters.values() if parameter in part.tensors
    }
    return LayerStatistics(
        part.examples,
        part.batches,
        part.rows.get(name, 0),
        part.features.get(name),
        part.output_gradients.get(name),
        part.reduced.get(name),
        tensors,
        curvatures,
    )
