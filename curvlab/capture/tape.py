"""Tape: runs a model and records the input of every affine map and the gradient at its output.

One autograd node after each map (an in-place identity tied to a scalar anchor) hands the gradient over and lets it
pass. Asking autograd for the anchor's gradient then visits what the output gradients need and nothing else: no weight
gradient is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.capture.dataflow import Dataflow, tensors_in
from curvlab.capture.first_look import FirstLook
from curvlab.capture.functional import FunctionalUses
from curvlab.capture.gathered import recorded_call
from curvlab.capture.model_inputs import Inputs, batch_size, call_model, eager, explained, named_inputs, shapes
from curvlab.capture.module_input import module_input
from curvlab.capture.output_gradient import OutputGradient
from curvlab.capture.sample import Call, example_axis
from curvlab.errors import CurvlabError, RecordingFault, UnsupportedLayer
from curvlab.layers.layer import Layer, Unrolled
from curvlab.layers.operations.operation import itself


class Tape:
    """Hooks on a model; `run` is its forward, `pull` a backward from the output to every map.

    A class with `close()` and not a generator: an optimizer holds one for as long as it lives. Hooks are there only
    while a call is recorded, so that in between the model can be copied and pickled like any other.

    Args:
        model: the network.
        modules: module name -> what `adapt` made of it.
        on_call: gets (name, call) as soon as a map has run.
        on_output_gradient: gets (name, call, gradient) as soon as the gradient at its output is known; None records no
            graph.
        on_refusal: gets (name, reason) for a map that could not be recorded, and for a parameter used in an unknown
            way.
        axes: name -> axis of the examples in that map's input, as the first look has seen it; none before.
        functional: whether parameters used outside the modules are recorded too. Every torch call is looked at then.
        look: where tensors hold examples, as the survey has decided it; one that decides without.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Mapping[str, Layer | Unrolled],
        on_call: Callable[[str, Call], None],
        on_output_gradient: Callable[[str, Call, Tensor], None] | None,
        on_refusal: Callable[[str, str], object],
        axes: Mapping[str, int] | None = None,
        functional: bool = True,
        look: FirstLook | None = None,
    ) -> None:
        self.axes = axes or {}
        self.model, self.on_call, self.on_refusal = model, on_call, on_refusal
        self.on_output_gradient = on_output_gradient
        self.examples = self.runs = 0
        self.anchor: Tensor | None = None
        self.output: Any = None
        self.kwargs: Mapping[str, Any] = {}
        self.watcher: FunctionalUses | None = None
        if functional:
            self.watcher = FunctionalUses(
                Dataflow(model.named_parameters(), model.buffers()), self, look or FirstLook()
            )
        self._sound: set[Layer] = set()
        self._handles: list[Any] = []
        self._replaced: list[tuple[nn.Module, Any]] = []
        self._armed = self._running = self._fast_path = False
        lookup = dict(model.named_modules())
        self._modules = [(name, lookup[name], adapted) for name, adapted in modules.items()]

    def run(self, inputs: Inputs) -> Any:
        """The model's output for a batch, recorded.

        Raises:
            CurvlabError: whatever the model raised about this batch, as one sentence.
        """
        with explained(f"a batch of {shapes(inputs)}"), self.recording(), eager():
            return call_model(self.model, inputs)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, every call of the model is recorded: `runs` counts them, `output` is what the last one returned."""
        self._hook()
        try:
            yield
        finally:
            self.pause()

    def join(self, args: Any, kwargs: Any) -> None:
        """Record the call of the model that is just beginning: for a tape made inside the model's own pre-hook."""
        self._hook()
        self._begin(self.model, args, kwargs)

    def pause(self) -> None:
        """Stop recording and take all hooks off; what the last call returned stays."""
        self._armed = False
        for handle in self._handles:
            handle.remove()
        for module, before in reversed(self._replaced):
            vars(module).pop("forward", None)
            if before is not None:
                vars(module)["forward"] = before
        self._handles, self._replaced = [], []

    def release(self) -> None:
        """Stop recording and let go of the last graph."""
        self.pause()
        self.output = self.anchor = None
        self.kwargs = {}
        if self.watcher is not None:
            self.watcher.begin((), 0)

    def _hook(self) -> None:
        self.pause()
        self._armed, self.runs, self.output = True, 0, None
        self._handles.append(self.model.register_forward_pre_hook(self._begin, with_kwargs=True))
        for name, module, adapted in self._modules:
            self._attach(name, module, adapted)
        self._handles.append(self.model.register_forward_hook(self._end, always_call=True))

    def _begin(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        if not self._armed or self._running:
            return
        self.examples, self.kwargs = batch_size(args or kwargs), named_inputs(args, kwargs)
        self.runs += 1
        self._running = True
        if self.on_output_gradient is not None:
            self.anchor = torch.zeros((), requires_grad=True)
        # The fused attention kernel runs no modules, so nothing inside it could be seen.
        self._fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        if self.watcher is not None:
            self.watcher.begin((args, kwargs), self.examples)
            self.watcher.__enter__()  # type: ignore[no-untyped-call]

    def _end(self, _: nn.Module, __: Any, output: Any) -> None:
        if not self._running:
            return
        if self.watcher is not None:
            self.watcher.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        torch.backends.mha.set_fastpath_enabled(self._fast_path)
        self._running, self.output = False, output

    def pull(
        self, output: Tensor, cotangent: Tensor, parameters: Iterable[Tensor] = (), retain_graph: bool = False
    ) -> list[Tensor | None]:
        """One backward pass from `cotangent` at the output; `on_output_gradient` gets every map's gradient.

        Returns:
            The gradients of `parameters`; None for those that the output does not depend on.
        """
        wanted = list(parameters)
        inputs = wanted if self.anchor is None else [*wanted, self.anchor]
        if not inputs or not output.requires_grad:
            return [None] * len(wanted)
        found = torch.autograd.grad(output, inputs, cotangent, retain_graph=retain_graph, allow_unused=True)
        return list(found[: len(wanted)])

    def close(self) -> None:
        """Take all hooks off, and let go of everything: what a cycle keeps alive waits for the garbage collector."""
        self.pause()
        self.anchor = self.output = self.on_output_gradient = None
        self.on_call = self.on_refusal = _nothing
        self.watcher = None

    def __enter__(self) -> Tape:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attach(self, name: str, module: nn.Module, adapted: Layer | Unrolled) -> None:
        watcher = self.watcher
        if watcher is not None:
            self._handles.append(module.register_forward_pre_hook(watcher.enter))
        if isinstance(adapted, Layer):

            def record(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
                return self._record(name, adapted, args, kwargs, output, module) if self._running else None

            self._handles.append(module.register_forward_hook(record, with_kwargs=True))
        else:
            before = vars(module).get("forward")
            vars(module)["forward"] = self._unrolled(name, adapted, module.forward)
            self._replaced.append((module, before))
        if watcher is not None:
            self._handles.append(module.register_forward_hook(watcher.leave, always_call=True))

    def _unrolled(self, name: str, adapted: Unrolled, own: Callable[..., Any]) -> Callable[..., Any]:
        """The forward of a module that shows its maps while a call is recorded; its `own` otherwise."""

        def tap(part: str, x: Tensor, y: Tensor) -> Tensor:
            use = f"{name}.{part}" if name else part
            recorded: Tensor = self._record(use, adapted.layers[part], (x,), {}, y)
            return recorded

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not self._running:
                return own(*args, **kwargs)
            try:
                output = adapted.forward(tap, *args, **kwargs)
            except UnsupportedLayer as reason:
                self.on_refusal(name, str(reason))
                output = own(*args, **kwargs)
            self._carry(output, args, kwargs)
            return output

        return forward

    def _record(
        self, name: str, layer: Layer, args: Any, kwargs: Any, output: Any, module: nn.Module | None = None
    ) -> Any:
        # What recording computes is not the model's doing: the watcher of parameters need not see it.
        with torch._C.DisableTorchFunction():
            try:
                watcher = self.watcher if module is not None else None
                if watcher is not None and watcher.shared(name, layer, module, args, kwargs, output):
                    return output
                call, arranged = self._call(name, layer, args, kwargs, output, module is None)
            except UnsupportedLayer as reason:
                self.on_refusal(name, str(reason))
                self._carry(output, args, kwargs)
                return output
            try:
                self.show(name, call)
                tapped = self.tap(output, lambda g: self.send(name, call, arranged(g)))
            except (CurvlabError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                raise RecordingFault(f"{type(error).__name__}: {error}, while recording {name!r}") from error
            self._carry(tapped, args, kwargs)
            return tapped

    def _carry(self, output: Any, args: Any, kwargs: Any) -> None:
        if self.watcher is not None:
            self.watcher.flow.carry("module", output, (args, kwargs))

    def _call(
        self, name: str, layer: Layer, args: Any, kwargs: Any, output: Any, examples_first: bool
    ) -> tuple[Call, Callable[[Tensor], Tensor]]:
        x = module_input(layer, args, kwargs, output, self._sound)
        if examples_first:
            example_axis(x.shape[:1], self.examples, layer.kind)
            return Call(layer, x, 0, output.numel() // (layer.groups * layer.out_features), x._version), itself
        rows = None
        if self.watcher is not None:
            rows = next((found for one in tensors_in((args, kwargs)) if (found := self.watcher.flow.rows(one))), None)
        call, arranged = recorded_call(layer, x, output, self.examples, rows, self.axes.get(name))
        call.watched = rows is not None
        return call, arranged

    def show(self, name: str, call: Call) -> None:
        """See `recorder.Recorder`."""
        self.on_call(name, call)

    def send(self, name: str, call: Call, gradient: Tensor) -> None:
        """See `recorder.Recorder`."""
        if self.on_output_gradient is not None:
            self.on_output_gradient(name, call, gradient)

    def refuse(self, name: str, why: str) -> None:
        """See `recorder.Recorder`."""
        self.on_refusal(name, why)

    def begin_pass(self) -> None:
        """A backward pass begins."""
        if self.watcher is not None:
            self.watcher.pulled.begin_pass()

    def end_pass(self) -> None:
        """A backward pass is over: what still waits for more gradients has got them all."""
        if self.watcher is not None:
            with torch.no_grad():
                self.watcher.pulled.flush()

    def tap(self, output: Tensor, sink: Callable[[Tensor], None]) -> Tensor:
        """See `recorder.Recorder`."""
        if self.on_output_gradient is None or self.anchor is None:
            return output
        if output._is_view():  # an in-place node on a view would rewrite the history of its base
            output = output.clone()
        tapped: Tensor = OutputGradient.apply(output, self.anchor, sink)  # type: ignore[no-untyped-call]
        return tapped


def _nothing(*_: Any) -> None:
    """What a closed tape calls in place of its listeners."""
