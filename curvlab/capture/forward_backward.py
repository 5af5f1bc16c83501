"""forward_backward: runs a batch once, forward and backward, and records what every block was fed and sent back.

The profiler, every optimizer, comparisons and the public statistics stand on this one pass, so that a mask, the axis of
the classes, several targets per example or a parameter with several uses is handled here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.capture.batch_record import BatchRecord, Observer
from curvlab.capture.closures import Closure, checked_loss
from curvlab.capture.gradients import gradients_of
from curvlab.capture.output import output_tensor
from curvlab.capture.sample import Call, Sample
from curvlab.capture.survey import Survey, components, first_examples, survey, use_key
from curvlab.capture.tape import Inputs, Tape, eager
from curvlab.errors import CurvlabError
from curvlab.layers.layer import Layer, Unrolled
from curvlab.likelihoods import Categorical, Likelihood
from curvlab.likelihoods.fisher import Fisher
from curvlab.likelihoods.loss_gradient import class_axis_of, counted, loss_scale
from curvlab.likelihoods.masked import Masked, position_mask
from curvlab.likelihoods.of_batch import of_batch


class ForwardBackward:
    """Records batches of one model.

    Hooks are on the model only while a batch runs, so that it can be copied and pickled in between.

    Args:
        model: the network.
        name: of whoever asks, for messages.
        found: what the model is made of; None: a small forward pass of the model's own finds out at the first batch.
        output_gradients: whether anybody wants what blocks send back; without them a backward pass costs nothing more.
        wanted: names of the blocks to record; None records all of them.
        stream: show each block to the observer as soon as it has run, and let go of what nobody needs any more; else
            everything is shown once the pass is over.
        hold_inputs: whether inputs are still needed in the backward pass.
        dtype: of the products made from samples; None is the model's own type, float32 at least.

    Attributes:
        found: the model's blocks, once the model has run.
        refused: name -> why it could not be recorded in some batch.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        *,
        found: Survey | None = None,
        output_gradients: bool = True,
        wanted: Callable[[Survey], Collection[str]] | None = None,
        stream: bool = False,
        hold_inputs: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.model, self.name, self.stream, self.hold_inputs = model, name, stream, hold_inputs
        self.wants_gradients, self.wanted = output_gradients, wanted
        # Half precision has no Cholesky factors.
        self.dtype = dtype or torch.promote_types(next(model.parameters()).dtype, torch.float32)
        self.found: Survey | None = None
        self.refused: dict[str, str] = {}
        self._tape: Tape | None = None
        self._group: dict[str, tuple[str, ...]] = {}
        self._class_axis: int | None = None
        self._surveying = False
        self._observer: Observer | None = None
        self._calls: dict[str, list[Call]] = {}
        self._mask: Tensor | None = None
        self._kept = 0
        self._waiting: dict[tuple[str, ...], int] = {}
        self._collecting, self._passed = False, 0
        self._factor: Tensor | float = 1.0
        if found is not None:
            self._open(found)

    # The two ways to run a batch.

    def closure(
        self,
        closure: Closure,
        parameters: Mapping[str, Tensor],
        fisher: Fisher | None = None,
        observer: Observer | None = None,
        keep: bool = False,
        scaled: bool = False,
    ) -> BatchRecord:
        """A batch that a closure runs, with the gradients of its loss.

        Args:
            closure: runs the model once and returns the mean loss.
            parameters: to differentiate the loss by, by name; with none of them a backward pass computes the output
                gradients alone.
            fisher: which targets the output gradients are of; "empirical" takes them from the backward pass of the
                loss itself. None: of the loss, times N.
            observer: takes statistics.
            keep: whether the record holds the samples of every pass.
            scaled: whether the record's `scale` is wanted; output gradients of the loss itself always need it.

        Raises:
            CurvlabError: the closure did not run the model, ran it twice, or has called backward; the loss is no
                multiple of the likelihood's where that matters.
        """
        self._begin(observer)
        with self._recording(), eager():
            loss = checked_loss(self.name, closure())
        tape = self._checked()
        inputs = self._flush_inputs()
        target = None if fisher is None else fisher.likelihood
        z = None if target is None else output_tensor(tape.output)
        pseudo = fisher is not None and fisher.pseudo
        passes: list[dict[str, Sample]] = []
        own = self.wants_gradients and not pseudo and (fisher is None or fisher.backward)
        self._open_pass(own)
        gradients, at_output = gradients_of(self.name, loss, parameters, z, tape.anchor, retain_graph=pseudo)
        likelihood = self._of_loss(target, z, at_output)
        scale: Tensor | float = 1.0
        if likelihood is not None and z is not None and at_output is not None and (own or scaled):
            scale = loss_scale(likelihood, z.detach(), at_output, loss.detach()).to(loss.dtype)
        if own:
            self._factor = tape.examples / scale if fisher is not None else tape.examples
            self._close_pass(passes, keep)
        if pseudo and fisher is not None and likelihood is not None and z is not None:
            with self._full_precision():
                for cotangent, last in _marked(fisher.cotangents(likelihood, z, None)):
                    self._open_pass(True)
                    tape.pull(z, cotangent.to(z.dtype), retain_graph=not last)
                    self._close_pass(passes, keep)
        examples = tape.examples
        self._end()
        held = inputs if keep or not self.stream else {}
        return BatchRecord(examples, loss.detach(), gradients, likelihood, scale, held, tuple(passes))

    def batch(
        self,
        inputs: Inputs,
        targets: Tensor | None,
        fisher: Fisher,
        observer: Observer | None = None,
        parameters: Mapping[str, Tensor] | None = None,
    ) -> BatchRecord:
        """A batch of inputs and targets at weights that stay.

        Args:
            inputs: of the model.
            targets: of the likelihood, or None.
            fisher: which targets the output gradients are of.
            observer: takes statistics.
            parameters: to have the mean gradient of, by name, at the last pass's targets; no other gradient of a weight
                is computed.

        Raises:
            CurvlabError: whatever the model raised about this batch, or targets that do not fit its output.
        """
        tape = self._tape or self._open(survey(self.model, first_examples(inputs, 2)))
        self._begin(observer)
        asked = dict(parameters or {})
        gradients: dict[str, Tensor] = {}
        backward = (self.wants_gradients or bool(asked)) and fisher.backward
        with _frozen(self.model, asked.values()), torch.set_grad_enabled(backward):
            output = output_tensor(tape.run(inputs))
            self._flush_inputs()
            likelihood: Likelihood | None = None
            if backward and fisher.likelihood is not None:
                likelihood = self._of_batch(fisher.likelihood, output, targets, tape)
                for cotangent, last in _marked(fisher.cotangents(likelihood, output, targets)):
                    self._open_pass(self.wants_gradients)
                    pulled = tape.pull(output, cotangent.to(output.dtype), asked.values(), retain_graph=not last)
                    self._close_pass([], keep=False)
                    gradients = {n: g / tape.examples for n, g in zip(asked, pulled, strict=True) if g is not None}
        examples = tape.examples
        self._end()
        return BatchRecord(examples, gradients=gradients, likelihood=likelihood)

    def close(self) -> None:
        """Let go of the model."""
        if self._tape is not None:
            self._tape.close()
        self._calls, self._observer = {}, None

    # Which likelihood a batch has.

    def _of_batch(self, given: Likelihood, z: Tensor, y: Tensor | None, tape: Tape) -> Likelihood:
        if z.shape[:1] != (tape.examples,):
            raise CurvlabError(
                f"the model's output has shape {tuple(z.shape)} for a batch of {tape.examples} examples",
                "its first axis must be the examples",
            )
        return of_batch(given, z, y, tape.kwargs)

    def _of_loss(self, given: Likelihood | None, z: Tensor | None, at_output: Tensor | None) -> Likelihood | None:
        """The likelihood of a closure's batch, whose targets nobody sees, from ∂h/∂z."""
        if given is None or z is None:
            return given
        tape = self._checked()
        if at_output is None or not isinstance(given, Categorical):
            return self._of_batch(given, z.detach(), None, tape)
        likelihood = given
        if not given.found and z.ndim > 2:
            if self._class_axis is None:
                self._class_axis = class_axis_of(at_output)
            likelihood = Categorical(class_axis=self._class_axis)
        mask, padding = counted(likelihood, at_output), position_mask(tape.kwargs)
        if padding is not None and padding.shape == mask.shape:
            mask = mask & padding.to(mask.device)
        return Masked(likelihood, mask)

    # What runs during the passes.

    def _begin(self, observer: Observer | None) -> None:
        self._observer, self._calls, self._passed, self._mask = observer, {}, 0, None
        self._collecting = False

    def _end(self) -> None:
        self._calls, self._observer, self._mask = {}, None, None
        if self._tape is not None:
            self._tape.release()

    def _on_call(self, use: str, call: Call) -> None:
        name = self._block(use, call)
        if name is None or self._tape is None:
            return
        if self._mask is None and (mask := position_mask(self._tape.kwargs)) is not None:
            self._mask, self._kept = mask, int(mask.sum())
        if (mask := _mask_of(call, self._mask)) is not None:
            call.mask, call.kept = mask, self._kept
        self._calls.setdefault(name, []).append(call)
        # A block that runs many times (a recurrent cell) is worth waiting for: one product instead of one per call.
        once = self.found is not None and self.found.blocks[name].calls == 1
        if self.stream and self._observer is not None and once:
            self._show_inputs({name: self._sample([call])})

    def _block(self, use: str, call: Call) -> str | None:
        return None if self.found is None else self.found.block_of.get(use_key(use, call.layer))

    def _flush_inputs(self) -> dict[str, Sample]:
        """Show the inputs that have not been shown yet."""
        samples = {name: self._sample(calls) for name, calls in self._calls.items()}
        if self._observer is not None:
            blocks = {} if self.found is None else self.found.blocks
            late = {n: s for n, s in samples.items() if not self.stream or blocks[n].calls != 1}
            if late:
                self._show_inputs(late)
        elif not self.wants_gradients:
            for calls in self._calls.values():
                for call in calls:
                    call.check()
        return samples

    def _show_inputs(self, samples: dict[str, Sample]) -> None:
        assert self._observer is not None
        for sample in samples.values():
            for call in sample.calls:
                call.check()
        with torch.no_grad(), self._full_precision():
            self._observer.inputs(samples)
        if self.stream and not self.hold_inputs:
            for sample in samples.values():
                for call in sample.calls:
                    call.x = None

    def _open_pass(self, collecting: bool) -> None:
        self._collecting, self._factor = collecting, 1.0
        if collecting:
            groups = set(self._group.values())
            self._waiting = {group: sum(len(self._calls.get(n, ())) for n in group) for group in groups}

    def _close_pass(self, passes: list[dict[str, Sample]], keep: bool) -> None:
        """The end of a backward pass: whatever has not been shown yet is."""
        self._collecting = False
        for calls in self._calls.values() if not self.stream else ():
            for call in calls:
                if call.g is not None and not (isinstance(self._factor, float) and self._factor == 1.0):
                    call.g = call.g * self._factor
        if self.stream:
            # Some outputs had no influence on the loss: their gradients are zero, and there is nothing to add.
            for group in [group for group, count in self._waiting.items() if count > 0]:
                self._show_gradients(group)
        else:
            shown = self._show_gradients(tuple(self._calls))
            if keep:
                passes.append(shown)
        for calls in self._calls.values():
            for call in calls:
                call.g = None
        self._passed += 1

    def _on_output_gradient(self, use: str, call: Call, gradient: Tensor) -> None:
        name = self._block(use, call) if self._collecting else None
        if name is None:
            return
        call.check()
        call.g = gradient
        if call.mask is not None:  # nothing flows back from padding in most networks; nothing of it counts in any
            call.g = gradient * call.mask.reshape(*call.mask.shape, *(1,) * (gradient.ndim - 2)).to(gradient.dtype)
        if self.stream:
            group = self._group[name]
            self._waiting[group] -= 1
            if self._waiting[group] == 0:
                self._show_gradients(group)
                for member in group:
                    for done in self._calls.get(member, ()):
                        done.g = None

    def _show_gradients(self, group: Collection[str]) -> dict[str, Sample]:
        calls = {name: [c for c in self._calls.get(name, ()) if c.g is not None] for name in group}
        # The record keeps calls of its own: these lose their gradients when the next pass begins.
        samples = {name: self._sample([replace(c) for c in own]) for name, own in calls.items() if own}
        if self._observer is not None and samples:
            with torch.no_grad(), self._full_precision():
                self._observer.output_gradients(samples, self._passed)
        return samples

    def _sample(self, calls: list[Call]) -> Sample:
        assert self._tape is not None
        return Sample(calls, self._tape.examples, self.dtype)

    def _full_precision(self) -> AbstractContextManager[Any]:
        """Whatever autocast the forward runs under, statistics keep the parameters' own type."""
        return torch.autocast(next(self.model.parameters()).device.type, enabled=False)

    # Hooks.

    def _checked(self) -> Tape:
        tape = self._tape
        if tape is None or tape.runs != 1:
            what = "did not run the model" if tape is None or not tape.runs else f"ran the model {tape.runs} times"
            raise CurvlabError(
                f"{self.name}: the closure {what}", "it must run it once", "call model(x) in the closure"
            )
        return tape

    @contextmanager
    def _recording(self) -> Iterator[None]:
        if self._tape is not None:
            with self._tape.recording():
                yield
            return
        handle = self.model.register_forward_pre_hook(self._first_look, with_kwargs=True, prepend=True)
        try:
            yield
        finally:
            handle.remove()
            self._pause()

    def _pause(self) -> None:
        if self._tape is not None:
            self._tape.pause()

    def _first_look(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        """At the first call find the model's blocks by a small forward of its own, then record the call."""
        if self._tape is not None or self._surveying:  # the survey's own forward comes through here too
            return
        self._surveying = True
        try:
            lone = len(args) == 1 and isinstance(args[0], Tensor) and not kwargs
            inputs: Inputs = args[0] if lone else args or kwargs
            found = survey(self.model, first_examples(inputs, 2))
        finally:
            self._surveying = False
        self._open(found).join(args, kwargs)

    def _open(self, found: Survey) -> Tape:
        self.found = found
        self._group = {name: tuple(group) for group in components(found.blocks) for name in group}
        on_gradient = self._on_output_gradient if self.wants_gradients else None
        modules, functional = _shown_by(found, found.blocks if self.wanted is None else self.wanted(found))
        refuse = self.refused.setdefault
        self._tape = Tape(self.model, modules, self._on_call, on_gradient, refuse, found.axes, functional)
        return self._tape


def _shown_by(found: Survey, blocks: Collection[str]) -> tuple[dict[str, Layer | Unrolled], bool]:
    """The modules that show these blocks, and False; all, and True if a parameter is used outside modules for one."""
    owners: dict[str, str] = {}
    for name, adapted in found.modules.items():
        prefix = f"{name}." if name else ""
        parts = [name] if isinstance(adapted, Layer) else [prefix + part for part in adapted.layers]
        owners.update(dict.fromkeys(parts, name))
    uses = [use for block in blocks for use in found.blocks[block].uses]
    if not owners.keys() >= set(uses):
        return found.modules, True
    return {name: found.modules[name] for name in dict.fromkeys(owners[use] for use in uses)}, False


def _mask_of(call: Call, mask: Tensor | None) -> Tensor | None:
    """The batch's mask, for a map that has one row per position of the mask: others see no padding as such."""
    if mask is None or call.x is None or call.axis != 0:
        return None
    return mask if call.x.shape[:2] == mask.shape and call.rows == mask.numel() else None


def _marked(cotangents: Iterator[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Each cotangent with whether it is the last: only the last pass may free the graph."""
    current = next(cotangents, None)
    while current is not None:
        following = next(cotangents, None)
        yield current, following is None
        current = following


@contextmanager
def _frozen(model: nn.Module, but: Iterable[Tensor] = ()) -> Iterator[None]:
    """Only the parameters in `but` ask for a gradient inside: autograd stores no inputs for the others' gradients."""
    wanted = {id(p) for p in but}
    before = [(p, p.requires_grad) for p in model.parameters()]
    for p, _ in before:
        p.requires_grad_(id(p) in wanted)
    try:
        yield
    finally:
        for p, asked in before:
            p.requires_grad_(asked)
