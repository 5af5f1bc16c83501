"""DirectionStudy: one network, and the optimizers that see each of its batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from curvlab.capture.batch_record import BatchRecord
from curvlab.capture.closures import Closure
from curvlab.comparison.agreement import Agreement, agreements
from curvlab.comparison.blocks import Layers, layers_of
from curvlab.comparison.exact_baseline import ExactBaseline
from curvlab.comparison.fisher_average import FisherAverage
from curvlab.comparison.optimizer_specs import OptimizerSpec
from curvlab.comparison.reference import ExactReference, OptimizerReference, Reference
from curvlab.comparison.request import EXACT
from curvlab.comparison.shadow_optimizer import ShadowOptimizer
from curvlab.comparison.shared_batch import SharedBatch
from curvlab.comparison.workload import Workload
from curvlab.optim import create
from curvlab.optim.block_fisher import BlockFisher
from curvlab.optim.core import Named


class DirectionStudy:
    """Optimizers, a baseline and a metric, all of one model.

    Args:
        workload: what is compared on.
        specs: with complete settings.
        baseline: the same for the optimizer that is the baseline; of an exact matrix its name, lr and damping.
        seed: of pseudo-targets.
        globs: layers to compare; none means all.

    Attributes:
        shadows: label -> optimizer; the baseline's own is not among them unless it competes with other settings.
        alike: labels that are the baseline itself, with the same settings.
    """

    def __init__(
        self,
        workload: Workload,
        specs: Sequence[OptimizerSpec],
        baseline: OptimizerSpec,
        seed: int,
        globs: Sequence[str] = (),
    ) -> None:
        self.workload, self.model, self.globs = workload, workload.model, globs
        self.shared = SharedBatch(self.model, workload.likelihood, seed)
        self.alike = [
            one.label for one in specs if (one.optimizer, one.settings) == (baseline.optimizer, baseline.settings)
        ]
        self.shadows = {one.label: self._shadow(one) for one in specs if one.label not in self.alike}
        self.reference = self._reference(baseline)
        running = self.reference.shadow.optimizer if isinstance(self.reference, OptimizerReference) else None
        self.fisher = FisherAverage(self.model, running if isinstance(running, BlockFisher) else None)
        self.layers: Layers = {}

    def run(self, closure: Closure) -> BatchRecord:
        """Run a batch once; gradients are then in the parameters' `grad`, and in the record."""
        record = self.shared.run(closure)
        for name, p in self.model.named_parameters():
            p.grad = record.gradients.get(name)
        self.layers = self.layers or layers_of(self.model, self.shared.found, self.globs)
        return record

    def everyone(self) -> list[ShadowOptimizer]:
        """All optimizers, the baseline's first."""
        own = [self.reference.shadow] if isinstance(self.reference, OptimizerReference) else []
        return [*own, *self.shadows.values()]

    def measure(self, directions: Mapping[str, Named], baseline: Named, gradient: Named) -> dict[str, Agreement]:
        """Every label's agreement with the baseline, and under "" that of the baseline with itself."""
        alike = dict.fromkeys(["", *self.alike], baseline)
        return agreements({**directions, **alike}, baseline, gradient, self.layers, self.fisher.blocks())

    def _shadow(self, one: OptimizerSpec) -> ShadowOptimizer:
        optimizer = create(one.optimizer, self.model, likelihood=self.workload.likelihood, **one.settings)
        return ShadowOptimizer(optimizer, self.shared)

    def _reference(self, baseline: OptimizerSpec) -> Reference:
        if baseline.optimizer not in EXACT:
            return OptimizerReference(self._shadow(baseline))
        settings: Mapping[str, Any] = baseline.settings
        exact = ExactBaseline(self.model, baseline.optimizer, settings["damping"])  # type: ignore[arg-type]
        return ExactReference(exact, self.workload.whole, settings["lr"])

    def close(self) -> None:
        """Leave no gradients behind."""
        self.model.zero_grad(set_to_none=True)


def finite(directions: Named) -> bool:
    """Whether there are directions, and all of their numbers are finite."""
    return bool(directions) and bool(torch.stack([d.sum() for d in directions.values()]).isfinite().all())
