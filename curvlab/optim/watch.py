"""Watch: runs a closure once while its model is on a tape, and shows what every block saw and sent back.

Pseudo-gradients come from a second backward through the same forward graph (grosse 5.8; ren Alg. 15, line 7), so that
batch-norm statistics and dropout masks are those of the step itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.capture.output import output_tensor
from curvlab.capture.sample import Call, Sample
from curvlab.capture.survey import Survey, first_examples, survey, use_key
from curvlab.capture.tape import Inputs, Tape
from curvlab.errors import CurvlabError
from curvlab.layers.layer import Layer, Unrolled
from curvlab.optim.closures import Closure, checked_loss
from curvlab.optim.core import Named

Cotangent = Callable[[Tensor], Tensor]
"""The model's output z to what is pulled back from it: ∂ℓ/∂z at drawn targets."""


@dataclass(frozen=True)
class Seen:
    """One batch.

    Attributes:
        loss: the closure's, without its graph.
        examples: N.
        gradients: of the loss, by parameter name.
        samples: block name -> features of the block, and output gradients ∂ℓ_n/∂s without a 1/N where they are wanted.
    """

    loss: Tensor
    examples: int
    gradients: Named
    samples: dict[str, Sample]


class Watch:
    """The eyes of an optimizer on its model.

    Args:
        model: the network.
        name: of the optimizer, for messages.
        output_gradients: whether samples hold the gradients at the blocks' outputs; without them the backward costs
            nothing.
        wanted: names of the blocks to look at, from what the model is made of; None is all of them.

    Attributes:
        found: the model's blocks, once the model has run.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        output_gradients: bool = True,
        wanted: Callable[[Survey], Collection[str]] | None = None,
    ) -> None:
        self.model, self.name, self.output_gradients, self.wanted = model, name, output_gradients, wanted
        self.found: Survey | None = None
        self._tape: Tape | None = None
        self._calls: dict[str, list[Call]] = {}
        self._collecting = self._surveying = False
        self._scale = 1

    def run(self, closure: Closure, gradients_of: Callable[[Tensor, bool], Named], cotangent: Cotangent | None) -> Seen:
        """Loss, gradients and samples of one batch.

        Args:
            closure: runs the model once and returns the mean loss.
            gradients_of: (loss, keep the graph?) -> gradients by parameter name.
            cotangent: of the second backward; None takes the output gradients of the loss at the targets of the data.

        Raises:
            CurvlabError: the closure did not run the model, or ran it twice.
        """
        self._calls = {}
        with self._recording():
            loss = checked_loss(self.name, closure())
        tape = self._checked()
        # The closure's loss is a mean over the batch; ℓ_n is one example's.
        self._collecting = self.output_gradients and cotangent is None
        self._scale = tape.examples if cotangent is None else 1
        gradients = gradients_of(loss, cotangent is not None)
        if cotangent is not None:
            output, self._collecting = output_tensor(tape.output), True
            with torch.no_grad():
                pulled = cotangent(output)
            tape.pull(output, pulled)
        self._collecting = False
        # Half precision has no Cholesky factors.
        dtype = torch.promote_types(next(self.model.parameters()).dtype, torch.float32)
        lit = {name: [call for call in calls if self._complete(call)] for name, calls in self._calls.items()}
        samples = {name: Sample(calls, tape.examples, dtype) for name, calls in lit.items() if calls}
        examples, self._calls = tape.examples, {}
        tape.release()
        return Seen(loss.detach(), examples, gradients, samples)

    def output_gradients_of(self, loss: Tensor, retain_graph: bool = False) -> Named:
        """For `run` in place of gradients: a backward of the output gradients alone, without any weight's gradient."""
        self._checked().pull(loss, torch.ones_like(loss), retain_graph)
        return {}

    def _complete(self, call: Call) -> bool:
        """Whether the call shows what is wanted of it."""
        if not self.output_gradients:
            call.check()
        return not self.output_gradients or call.g is not None

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
        handle = self.model.register_forward_pre_hook(self._look, with_kwargs=True, prepend=True)
        try:
            yield
        finally:
            handle.remove()
            self._pause()

    def _pause(self) -> None:
        if self._tape is not None:
            self._tape.pause()

    def _look(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        """At the first call find the model's blocks by a small forward of its own, then record the call."""
        if self._tape is not None or self._surveying:  # the survey's own forward comes through here too
            return
        self._surveying = True
        try:
            lone = len(args) == 1 and isinstance(args[0], Tensor) and not kwargs
            inputs: Inputs = args[0] if lone else args or kwargs
            self.found = survey(self.model, first_examples(inputs, 2))
        finally:
            self._surveying = False
        found = self.found
        on_output_gradient = self._on_output_gradient if self.output_gradients else None
        modules, functional = _shown_by(found, found.blocks if self.wanted is None else self.wanted(found))
        self._tape = Tape(
            self.model, modules, self._on_call, on_output_gradient, lambda name, why: None, found.axes, functional
        )
        self._tape.join(args, kwargs)

    def _on_call(self, use: str, call: Call) -> None:
        assert self.found is not None
        name = self.found.block_of.get(use_key(use, call.layer))
        if name is not None:
            self._calls.setdefault(name, []).append(call)

    def _on_output_gradient(self, use: str, call: Call, gradient: Tensor) -> None:
        if self._collecting:
            call.check()
            call.g = gradient if self._scale == 1 else gradient * self._scale


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
