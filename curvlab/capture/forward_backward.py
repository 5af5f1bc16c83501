"""forward_backward: runs a batch once, forward and backward, and records every block's features and output gradients.

The profiler, every optimizer, comparisons and the public statistics stand on this one pass, so that a mask, the axis of
the classes, several targets per example or a parameter with several uses is handled here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.capture.batch_record import BatchRecord, Observer
from curvlab.capture.closures import Closure, checked_loss
from curvlab.capture.gradients import gradients_of
from curvlab.capture.model_inputs import Inputs, eager
from curvlab.capture.output import output_tensor
from curvlab.capture.preserve import frozen
from curvlab.capture.recording import Recording
from curvlab.capture.survey import Survey, first_examples, survey
from curvlab.capture.tape import Tape
from curvlab.errors import CurvlabError
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
        name: the caller's, for messages.
        found: the model's layers; None: a small forward pass finds them at the first batch.
        output_gradients: whether output gradients are recorded; without them a backward pass costs nothing more.
        wanted: names of the blocks to record; None records all of them.
        stream: show each block to the observer as soon as it has run, and release what is not needed any more; else
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
        self._recording: Recording | None = None
        self._observer: Observer | None = None
        self._class_axis: int | None = None
        self._surveying = False
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
        """Run a closure and record its batch, with the gradients of its loss.

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
        self._observer = observer
        if self._recording is not None:
            self._recording.begin(observer)
        with self._hooked(), eager():
            loss = checked_loss(self.name, closure())
        recording = self._checked()
        tape, inputs = recording.tape, recording.inputs()
        target = None if fisher is None else fisher.likelihood
        z = None if target is None else output_tensor(tape.output)
        pseudo = fisher is not None and fisher.pseudo
        own = self.wants_gradients and not pseudo and (fisher is None or fisher.backward)
        recording.open_pass(own)
        gradients, at_output = gradients_of(self.name, loss, parameters, z, tape.anchor, retain_graph=pseudo)
        likelihood = self._of_loss(target, z, at_output, tape)
        scale: Tensor | float = 1.0
        if likelihood is not None and z is not None and at_output is not None and (own or scaled):
            scale = loss_scale(likelihood, z.detach(), at_output, loss.detach()).to(loss.dtype)
        passes = [recording.close_pass(tape.examples / scale, keep)] if own else []
        if pseudo and fisher is not None and likelihood is not None and z is not None:
            with recording.full_precision():
                for cotangent, last in _marked(fisher.cotangents(likelihood, z, None)):
                    recording.open_pass(True)
                    tape.pull(z, cotangent.to(z.dtype), retain_graph=not last)
                    passes.append(recording.close_pass(keep=keep))
        examples = tape.examples
        recording.end()
        held = inputs if keep or not self.stream else {}
        kept = tuple(passes) if keep else ()
        return BatchRecord(examples, loss.detach(), gradients, likelihood, scale, held, kept)

    def batch(
        self,
        inputs: Inputs,
        targets: Tensor | None,
        fisher: Fisher,
        observer: Observer | None = None,
        parameters: Mapping[str, Tensor] | None = None,
    ) -> BatchRecord:
        """Run a batch of inputs and targets at fixed weights.

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
        recording = self._recording or self._open(survey(self.model, first_examples(inputs, 2)))
        recording.begin(observer)
        tape, asked = recording.tape, dict(parameters or {})
        gradients: dict[str, Tensor] = {}
        backward = (self.wants_gradients or bool(asked)) and fisher.backward
        with frozen(self.model, asked.values()), torch.enable_grad():
            output = output_tensor(tape.run(inputs))
            recording.inputs()
            likelihood: Likelihood | None = None
            if backward and fisher.likelihood is not None:
                likelihood = _of_batch(fisher.likelihood, output, targets, tape)
                for cotangent, last in _marked(fisher.cotangents(likelihood, output, targets)):
                    recording.open_pass(self.wants_gradients)
                    pulled = tape.pull(output, cotangent.to(output.dtype), asked.values(), retain_graph=not last)
                    recording.close_pass()
                    gradients = {n: g / tape.examples for n, g in zip(asked, pulled, strict=True) if g is not None}
        examples = tape.examples
        recording.end()
        return BatchRecord(examples, gradients=gradients, likelihood=likelihood)

    def close(self) -> None:
        """Let go of the model."""
        if self._recording is not None:
            self._recording.tape.close()
            self._recording.end()

    def _of_loss(
        self, given: Likelihood | None, z: Tensor | None, at_output: Tensor | None, tape: Tape
    ) -> Likelihood | None:
        """The likelihood of a closure's batch, whose targets are not given, from ∂h/∂z."""
        if given is None or z is None:
            return given
        if at_output is None or not isinstance(given, Categorical):
            return _of_batch(given, z.detach(), None, tape)
        likelihood = given
        if not given.found and z.ndim > 2:
            if self._class_axis is None:
                self._class_axis = class_axis_of(at_output)
            likelihood = Categorical(class_axis=self._class_axis)
        mask, padding = counted(likelihood, at_output), position_mask(tape.kwargs)
        if padding is not None and padding.shape == mask.shape:
            mask = mask & padding.to(mask.device)
        return Masked(likelihood, mask)

    def _checked(self) -> Recording:
        recording = self._recording
        runs = 0 if recording is None else recording.tape.runs
        if recording is None or runs != 1:
            what = f"ran the model {runs} times" if runs else "did not run the model"
            raise CurvlabError(
                f"{self.name}: the closure {what}", "it must run it once", "call model(x) in the closure"
            )
        return recording

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        if self._recording is not None:
            with self._recording.tape.recording():
                yield
            return
        handle = self.model.register_forward_pre_hook(self._first_look, with_kwargs=True, prepend=True)
        try:
            yield
        finally:
            handle.remove()
            self._pause()

    def _pause(self) -> None:
        if self._recording is not None:
            self._recording.tape.pause()

    def _first_look(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        """At the first call find the model's blocks by a small forward pass of its own, then record the call."""
        if self._recording is not None or self._surveying:  # the survey's own forward comes through here too
            return
        self._surveying = True
        try:
            lone = len(args) == 1 and isinstance(args[0], Tensor) and not kwargs
            inputs: Inputs = args[0] if lone else args or kwargs
            found = survey(self.model, first_examples(inputs, 2))
        finally:
            self._surveying = False
        recording = self._open(found)
        recording.begin(self._observer)
        recording.tape.join(args, kwargs)

    def _open(self, found: Survey) -> Recording:
        self.found = found
        self._recording = Recording(
            self.model,
            found,
            self.dtype,
            output_gradients=self.wants_gradients,
            wanted=found.blocks if self.wanted is None else self.wanted(found),
            stream=self.stream,
            hold_inputs=self.hold_inputs,
            refuse=self.refused.setdefault,
        )
        return self._recording


def _of_batch(given: Likelihood, z: Tensor, y: Tensor | None, tape: Tape) -> Likelihood:
    if z.shape[:1] != (tape.examples,):
        raise CurvlabError(
            f"the model's output has shape {tuple(z.shape)} for a batch of {tape.examples} examples",
            "its first axis must be the examples",
        )
    return of_batch(given, z, y, tape.kwargs)


def _marked(cotangents: Iterator[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Each cotangent with whether it is the last: only the last pass may free the graph."""
    current = next(cotangents, None)
    while current is not None:
        following = next(cotangents, None)
        yield current, following is None
        current = following
