"""One pass over the data feeds all statistics: one forward per batch, and the backward passes the Fisher type needs.

Feature statistics are taken while the forward runs and gradient statistics while the backward runs, so that no
activation or gradient is held longer than autograd holds it. Only where a block runs several times, or shares
parameters, are its gradients kept until all are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType

import torch
from torch import Tensor, nn

from curvlab.capture.batch_record import BatchObserver, Samples
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.capture.model_inputs import Inputs, batch_size
from curvlab.capture.sample import Sample
from curvlab.capture.survey import Survey
from curvlab.likelihoods import Likelihood
from curvlab.likelihoods.fisher import Fisher
from curvlab.statistics.block_fisher import BlockFisher
from curvlab.statistics.feature_moments import FeatureMoments
from curvlab.statistics.output_gradient_moments import OutputGradientMoments, ReducedMoments
from curvlab.statistics.plan import Collected, Plan
from curvlab.statistics.tensor_normal import TensorNormal


def collect(
    model: nn.Module,
    survey: Survey,
    batches: Iterable[tuple[Inputs, Tensor | None]],
    likelihood: Likelihood,
    plan: Plan,
    generator: torch.Generator | None = None,
    on_batch: Callable[[int], None] = lambda _: None,
    observers: Sequence[BatchObserver] = (),
) -> tuple[tuple[Collected, ...], dict[str, str]]:
    """The statistics of all batches (one part, or two halves), and the names that could not be recorded with their
    reasons.

    `on_batch` gets the number of examples seen so far after each batch.
    """
    with Collector(model, survey, likelihood, plan, generator, observers) as collector:
        for inputs, targets in batches:
            collector.batch(inputs, targets)
            on_batch(collector.seen)
    return collector.parts, collector.refused


class Collector:
    """Adds batches to `parts`: one `Collected`, or two for the halves. An observer of the recorded batches.

    Attributes:
        seen: number of examples so far.
        refused: name -> why it could not be recorded in some batch.
    """

    def __init__(
        self,
        model: nn.Module,
        survey: Survey,
        likelihood: Likelihood,
        plan: Plan,
        generator: torch.Generator | None = None,
        observers: Sequence[BatchObserver] = (),
    ) -> None:
        self.survey, self.plan, self.observers = survey, plan, observers
        self.fisher = Fisher(likelihood, plan.fisher_type, plan.mc_samples, generator)
        self.parts = (Collected(), Collected()) if plan.halves else (Collected(),)
        self.seen = self._examples = 0
        self._recorder = ForwardBackward(
            model,
            "the profile",
            found=survey,
            output_gradients=plan.backward or bool(observers and plan.fisher_type != "forward-only"),
            stream=True,
            hold_inputs=plan.tensors is not None or plan.exact or plan.reduced or bool(observers),
            dtype=plan.dtype or next(model.parameters()).dtype,
        )

    @property
    def refused(self) -> dict[str, str]:
        """Name -> why it could not be recorded in some batch."""
        return self._recorder.refused

    def batch(self, inputs: Inputs, targets: Tensor | None) -> None:
        """One forward and its backward passes."""
        self._examples = batch_size(inputs)
        for half, part in enumerate(self.parts):
            part.examples += len(self._half(half))
            part.batches += 1
        self._recorder.batch(inputs, targets, self.fisher, self)
        self.seen += self._examples
        for observer in self.observers:
            observer.end(self._examples)

    def inputs(self, samples: Samples) -> None:
        """See `Observer.inputs`."""
        for observer in self.observers:
            observer.inputs(samples)
        plan = self.plan
        for part, halves in self._split(samples):
            for name, sample in halves.items():
                part.rows[name] = part.rows.get(name, 0) + sample.rows
                if plan.features and plan.wants("features", name):
                    part.features.setdefault(name, FeatureMoments(plan.keep_rows)).update(sample)
                if plan.reduced:
                    part.reduced.setdefault(name, ReducedMoments()).update_features(sample)

    def output_gradients(self, samples: Samples, passed: int) -> None:
        """See `Observer.output_gradients`: every statistic that needs gradients is fed."""
        for observer in self.observers:
            observer.output_gradients(samples, passed)
        plan = self.plan
        for part, halves in self._split(samples):
            for name, sample in halves.items():
                if plan.reduced:
                    part.reduced[name].update_output_gradients(sample)
                elif plan.output_gradients and plan.wants("output_gradients", name):
                    part.output_gradients.setdefault(name, OutputGradientMoments(plan.keep_rows)).update(sample)
            if plan.tensors == "per-example":
                self._update_tensors(part, halves)
        # The mean gradient of a batch, and a dense Fisher block, are not split in halves.
        if plan.tensors == "batch":
            self._update_tensors(self.parts[0], samples)
        if plan.exact:
            for name in [n for n in samples if plan.wants("exact", n)]:
                exact = self.parts[0].exact.setdefault(name, BlockFisher())
                exact.update(self.survey.blocks[name], samples, self.survey.blocks)

    def _update_tensors(self, part: Collected, samples: Mapping[str, Sample]) -> None:
        assert self.plan.tensors is not None
        uses: dict[str, list[tuple[Sample, str]]] = {}
        for name, sample in samples.items():
            for role, parameter in self.survey.blocks[name].parameters.items():
                if self.plan.wants("tensors", parameter):
                    uses.setdefault(parameter, []).append((sample, role))
        for parameter, parts in uses.items():
            sample, role = parts[0]
            if parameter not in part.tensors:
                part.tensors[parameter] = TensorNormal(sample.layer.modes(role), self.plan.tensors)
            part.tensors[parameter].update(parts, exact=self.plan.fisher_type == "type-2")

    def _half(self, half: int) -> range:
        """Which examples of this batch go to part `half`: by parity over the whole data, however it is cut into
        batches."""
        if len(self.parts) == 1:
            return range(self._examples)
        return range((half + self.seen) % 2, self._examples, 2)

    def _split(self, samples: Samples) -> Iterator[tuple[Collected, Samples]]:
        if len(self.parts) == 1:
            yield self.parts[0], samples
            return
        for half, part in enumerate(self.parts):
            if self._half(half):
                yield part, {name: sample.half(self._half(half)[0]) for name, sample in samples.items()}

    def __enter__(self) -> Collector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recorder.close()
