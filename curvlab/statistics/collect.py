"""One pass over the data feeds all statistics: one forward per batch, and the backward passes the Fisher type needs.

Feature statistics are taken while the forward runs and gradient statistics while the backward runs, so that no
activation or gradient is held longer than autograd holds it. Only where a block runs several times, or shares
parameters, are its gradients kept until all are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType

import torch
from torch import Tensor, nn

from curvlab.capture.output import output_tensor
from curvlab.capture.sample import Call, Sample
from curvlab.capture.survey import Survey, components, use_key
from curvlab.capture.tape import Inputs, Tape, batch_size
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood
from curvlab.likelihoods.class_axis import with_class_axis
from curvlab.likelihoods.masked import position_mask, with_mask
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
) -> tuple[tuple[Collected, ...], dict[str, str]]:
    """The statistics of all batches (one part, or two halves), and the names that could not be recorded with their
    reasons.

    `on_batch` gets the number of examples seen so far after each batch.
    """
    with Collector(model, survey, likelihood, plan, generator) as collector:
        for inputs, targets in batches:
            collector.batch(inputs, targets)
            on_batch(collector.seen)
    return collector.parts, collector.refused


class Collector:
    """Adds batches to `parts`: one `Collected`, or two for the halves.

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
    ) -> None:
        self.model, self.survey, self.likelihood, self.plan, self.generator = model, survey, likelihood, plan, generator
        self.parts = (Collected(), Collected()) if plan.halves else (Collected(),)
        self.refused: dict[str, str] = {}
        self.seen = self._examples = 0
        self._dtype = plan.dtype or next(model.parameters()).dtype
        self._group = {name: tuple(group) for group in components(survey.blocks) for name in group}
        self._calls: dict[str, list[Call]] = {}
        self._inputs: Inputs | None = None
        self._mask: Tensor | None = None
        self._waiting: dict[tuple[str, ...], int] = {}
        on_output_gradient = self._on_output_gradient if plan.backward else None
        self._tape = Tape(
            model, survey.modules, self._on_call, on_output_gradient, self.refused.setdefault, survey.axes
        )

    def batch(self, inputs: Inputs, targets: Tensor | None) -> None:
        """One forward and its backward passes."""
        self._examples, self._calls, self._inputs = batch_size(inputs), {}, inputs
        self._mask = position_mask(inputs)
        for half, part in enumerate(self.parts):
            part.examples += len(self._half(half))
            part.batches += 1
        with _frozen(self.model), torch.set_grad_enabled(self.plan.backward):
            output = output_tensor(self._tape.run(inputs))
            for name in [n for n in self._calls if self.survey.blocks[n].calls != 1]:
                self._update_features(name, self._calls[name])
            if self.plan.reduced:
                self._reduce_features()
            if self.plan.backward:
                self._backward(output, targets)
        self.seen += self._examples
        self._calls, self._inputs, self._mask = {}, None, None

    def _on_call(self, use: str, call: Call) -> None:
        name = self.survey.block_of.get(use_key(use, call.layer))
        if name is None:
            return
        call.mask = self._mask_of(call)
        self._calls.setdefault(name, []).append(call)
        # A block that runs many times (a recurrent cell) is worth waiting for: one product instead of one per call.
        if self.survey.blocks[name].calls == 1:
            self._update_features(name, [call])

    def _mask_of(self, call: Call) -> Tensor | None:
        """The batch's mask, for a map that has one row per position of the mask: others see no padding as such."""
        mask = self._mask
        if mask is None or call.x is None or call.axis != 0:
            return None
        return mask if call.x.shape[:2] == mask.shape and call.rows == mask.numel() else None

    def _update_features(self, name: str, calls: list[Call]) -> None:
        plan = self.plan
        for call in calls:
            call.check()
        for part, samples in self._split({name: self._sample(calls)}):
            sample = samples[name]
            part.rows[name] = part.rows.get(name, 0) + sample.rows
            if plan.features and plan.wants("features", name):
                part.features.setdefault(name, FeatureMoments(plan.keep_rows)).update(sample)
        if plan.tensors is None and not plan.exact and not plan.reduced:
            for call in calls:
                call.x = None  # the output gradients alone are needed from here on

    def _reduce_features(self) -> None:
        for name in self._calls:
            for part, samples in self._split({name: self._sample(self._calls[name])}):
                part.reduced.setdefault(name, ReducedMoments()).update_features(samples[name])

    def _backward(self, output: Tensor, targets: Tensor | None) -> None:
        if output.shape[:1] != (self._examples,):
            raise CurvlabError(
                f"the model's output has shape {tuple(output.shape)} for a batch of {self._examples} examples",
                "its first axis must be the examples",
            )
        plan, likelihood = self.plan, with_class_axis(self.likelihood, output, targets, self._inputs)
        likelihood = with_mask(likelihood, output, targets, self._inputs)
        cotangents = likelihood.cotangents(output, targets, plan.fisher_type, plan.mc_samples, self.generator)
        for cotangent, last in _marked(cotangents):
            self._waiting = {group: sum(len(self._calls.get(n, ())) for n in group) for group in self._group.values()}
            self._tape.pull(output, cotangent.to(output.dtype), retain_graph=not last)
            for group in [g for g, count in self._waiting.items() if count > 0]:
                self._complete(
                    group
                )  # some of its outputs had no influence on the loss: zero gradients, nothing to add

    def _on_output_gradient(self, use: str, call: Call, gradient: Tensor) -> None:
        name = self.survey.block_of.get(use_key(use, call.layer))
        if name is None:
            return
        call.check()
        call.g = gradient
        if call.mask is not None:  # nothing flows back from padding in most networks; nothing of it counts in any
            call.g = gradient * call.mask.reshape(*call.mask.shape, *(1,) * (gradient.ndim - 2)).to(gradient.dtype)
        group = self._group[name]
        self._waiting[group] -= 1
        if self._waiting[group] == 0:
            self._complete(group)

    def _complete(self, group: tuple[str, ...]) -> None:
        """All gradients of these blocks are there: feed every statistic that needs them, and let them go."""
        calls = {name: [c for c in self._calls.get(name, ()) if c.g is not None] for name in group}
        whole = {name: self._sample(own) for name, own in calls.items() if own}
        plan = self.plan
        for part, samples in self._split(whole):
            for name, sample in samples.items():
                if plan.reduced:
                    part.reduced[name].update_output_gradients(sample)
                elif plan.output_gradients and plan.wants("output_gradients", name):
                    part.output_gradients.setdefault(name, OutputGradientMoments(plan.keep_rows)).update(sample)
            if plan.tensors == "per-example":
                self._update_tensors(part, samples)
        # The mean gradient of a batch, and a dense Fisher block, are not split in halves.
        if plan.tensors == "batch":
            self._update_tensors(self.parts[0], whole)
        if plan.exact:
            for name in [n for n in whole if plan.wants("exact", n)]:
                exact = self.parts[0].exact.setdefault(name, BlockFisher())
                exact.update(self.survey.blocks[name], whole, self.survey.blocks)
        for own in calls.values():
            for call in own:
                call.g = None

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

    def _sample(self, calls: list[Call]) -> Sample:
        return Sample(calls, self._examples, self._dtype)

    def _half(self, half: int) -> range:
        """Which examples of this batch go to part `half`: by parity over the whole data, however it is cut into
        batches."""
        if len(self.parts) == 1:
            return range(self._examples)
        return range((half + self.seen) % 2, self._examples, 2)

    def _split(self, samples: dict[str, Sample]) -> Iterator[tuple[Collected, dict[str, Sample]]]:
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
        self._tape.close()
        self._calls = {}


def _marked(cotangents: Iterator[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Each cotangent with whether it is the last: only the last pass may free the graph."""
    current = next(cotangents, None)
    while current is not None:
        following = next(cotangents, None)
        yield current, following is None
        current = following


class _frozen:  # noqa: N801 - reads as a statement: with _frozen(model)
    """No parameter asks for a gradient inside: autograd then stores no inputs for weight gradients nobody wants."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def __enter__(self) -> None:
        for p in self.parameters:
            p.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for p in self.parameters:
            p.requires_grad_(True)
