"""Parameters used outside a layer module: `x + self.bias`, `h @ self.table.weight.t()` and the experts of a batched
product become layers too.

What an operation computes of parameters alone is followed as an `Expression` until it meets the examples. Where it
meets them in an operation that layers/operations has an adapter for, it is an affine map like a module's; elsewhere the
gradient of every example is taken through the operation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from curvlab.capture.dataflow import CONSTANT, EXAMPLES, Dataflow, tensors_in
from curvlab.capture.gathered import recorded_call
from curvlab.capture.operation_layers import OperationLayers, name_of, pulled_back
from curvlab.capture.pulled import Pulled, SharedCall, example_gradients
from curvlab.capture.recorder import Recorder
from curvlab.capture.torch_calls import CONSTANTS, EXPANSIONS, LIKE, LOOKS, operation_name
from curvlab.errors import CurvlabError, RecordingFault, UnsupportedLayer
from curvlab.layers.bare import Bare, broadcast_over_examples
from curvlab.layers.elementwise import Elementwise
from curvlab.layers.expression import CASTS, Expression, Form, inside, replaced
from curvlab.layers.layer import Layer
from curvlab.layers.operations.linear import canonical
from curvlab.layers.operations.operation import AffineUse, uses_of


class FunctionalUses(TorchFunctionMode):
    """Watches torch calls for the model's own parameters while no adapted module is running.

    Args:
        flow: marks of tensors.
        recorder: is shown what is found.
        batched: where constants, or parameters that were repeated, brought an axis of examples in, as the survey has
            seen it; None for the survey itself. A batch of as many examples as positions could not tell.

    Attributes:
        found: what this one's forward passes have added to that.
        constant: parameters that were used where no gradient comes back.
    """

    def __init__(
        self,
        flow: Dataflow,
        recorder: Recorder,
        batched: Collection[str] | None = None,
    ) -> None:
        super().__init__()
        self.constant: set[str] = set()
        self.batched, self.found = None if batched is None else set(batched), set[str]()
        self.flow, self.layers, self.recorder = flow, OperationLayers(), recorder
        self.pulled = Pulled(recorder)
        self._counts: dict[str, int] = {}
        self.inside = 0  # depth of adapted modules: what happens in there is theirs

    def enter(self, *_: Any) -> None:
        """Hook before an adapted module runs."""
        self.inside += 1

    def leave(self, *_: Any) -> None:
        """Hook after an adapted module has run."""
        self.inside -= 1

    def begin(self, inputs: Any, examples: int) -> None:
        """A call of the model begins."""
        self.inside = 0
        self._counts = {}
        self.layers.begin()
        self.flow.begin(tensors_in(inputs), examples)
        self.pulled.begin(examples)

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func`; if it uses a watched parameter, tell what it did."""
        kwargs = kwargs or {}
        if self.inside:
            return func(*args, **kwargs)
        name = operation_name(func)
        if name in LOOKS:
            return func(*args, **kwargs)
        given = (args, kwargs)
        tensors = tensors_in(args[:1] if name in LIKE else given)
        self._mark_unknown(tensors)
        if not any(self.flow.expression(one) is not None for one in tensors):
            output = func(*args, **kwargs)
            if isinstance(output, Tensor | tuple | list):
                self.flow.carry(name, output, given, tensors)
            return output
        if name in CONSTANTS or not torch.is_grad_enabled():  # no gradient comes back through it
            output = func(*args, **kwargs)
            self.constant.update(p for one in tensors if (e := self.flow.expression(one)) for p in e.parameters)
            varies = any(self.flow.varies(one) for one in tensors)
            for one in tensors_in(output):
                self.flow.put(one, EXAMPLES if varies else CONSTANT)
            return output
        expressed = replaced(given, lambda one: self.flow.expression(one) or one)
        self._mark_batched(" ".join([name, *sorted({p for one in inside(expressed) for p in one.parameters})]), tensors)
        if not any(self.flow.varies(one) for one in tensors):
            output = func(*args, **kwargs)
            with self._following(name, expressed):
                output = self._derive(func, name, given, expressed, output)
            return output  # noqa: RET504 - the block above can end early
        uses: Sequence[AffineUse] | None = None
        with self._following(name, expressed):
            uses = uses_of(func, *expressed)
        output = func(*args, **kwargs)
        with self._following(name, expressed):
            output = self._meet(func, name, given, expressed, uses, output)
        return output  # noqa: RET504 - the block above can end early

    @contextmanager
    def _following(self, name: str, expressed: Any) -> Iterator[None]:
        """What goes wrong inside is told of the parameters where the network is surveyed; afterwards it is a fault."""
        try:
            yield
        except (CurvlabError, RecordingFault, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            if self.batched is not None:
                raise RecordingFault(f"{said}, while following the operation '{name}'") from error
            self._refuse(inside(expressed), f"used by the operation '{name}', which could not be followed: {said}")

    def shared(self, name: str, layer: Layer, module: Any, args: Any, kwargs: Any, output: Any) -> bool:
        """Whether a module ran without the examples; its output is then an expression of parameters, which is followed
        until it meets them."""
        tensors = tensors_in((args, kwargs))
        self._mark_unknown(tensors)
        self._mark_batched(f"module {name}", tensors)
        if not isinstance(output, Tensor) or any(self.flow.varies(one) for one in tensors):
            return False
        x = layer.prepare(*args, **kwargs).detach()
        expressed = replaced((args, kwargs), lambda one: self.flow.expression(one) or one)
        own = self.flow.named(layer.parameters.values())
        self.flow.put(output, SharedCall(name, layer, x, output, (module.forward, *expressed), own))
        return True

    def _derive(self, func: Any, name: str, given: Any, expressed: Any, output: Any) -> Any:
        """An operation of parameters alone."""
        operands = list(inside(expressed))
        if name in CASTS and isinstance(output, Tensor):
            self.flow.put(output, operands[0])
            return output
        if name == "__setitem__" or (name.endswith("_") and not name.startswith("__")):
            self._refuse(operands, f"it is overwritten by '{name}'")
            return output
        if name in EXPANSIONS and isinstance(output, Tensor) and self._over_examples(operands[0], output):
            return self._affine(name, [_added(operands[0], output)], output, given)
        node = self._shared_operation(func, name, given, expressed, output)
        for place, one in enumerate(output if isinstance(output, tuple | list) else (output,)):
            if not isinstance(one, Tensor):
                continue
            if not one.is_floating_point() and not one.is_complex():
                self.flow.put(one, CONSTANT)
                continue
            pick = place if isinstance(output, tuple | list) else None
            self.flow.put(one, node or Expression(one, func, expressed[0], expressed[1], pick, name))
        return output

    def _over_examples(self, operand: Expression, output: Tensor) -> bool:
        """Whether a parameter has been repeated for every example."""
        value, key = operand.value, self._place("repeat", *operand.parameters)
        longer = output.ndim > value.ndim or (output.ndim == value.ndim and value.shape[0] == 1)
        if not longer or output.shape[0] != self.flow.examples or not broadcast_over_examples(value, output):
            return False
        return self._is_batched(key)

    def _mark_unknown(self, tensors: list[Tensor]) -> None:
        """Tensors from elsewhere, such as an attribute of a module, hold examples if their first axis is as long as
        that of the first look's."""
        for one in tensors:
            if self.flow.get(one) is None:
                along = one.ndim > 0 and one.shape[0] == self.flow.examples
                if self.batched is not None:
                    along = self._place("outside") in self.batched
                elif along:
                    self.found.add(self._place("outside"))
                else:
                    self._place("outside")
                self.flow.put(one, EXAMPLES if along else CONSTANT)

    def _mark_batched(self, place: str, tensors: list[Tensor]) -> None:
        """Constants that were made with an axis of examples hold them as inputs do."""
        key = self._place(place)
        constants = [one for one in tensors if one.ndim > 1 and self.flow.is_made(one)]
        along = [one for one in constants if one.shape[0] == self.flow.examples]
        if along and not any(self.flow.varies(one) for one in tensors) and self._is_batched(key):
            for one in along:
                self.flow.put(one, EXAMPLES)

    def _place(self, *words: str) -> str:
        """A place in the forward pass: of the same words, each one that comes is another."""
        place = " ".join(words)
        self._counts[place] = self._counts.get(place, 0) + 1
        return f"{place} {self._counts[place]}"

    def _is_batched(self, key: str) -> bool:
        if self.batched is not None:
            return key in self.batched
        self.found.add(key)
        return True

    def _shared_operation(self, func: Any, name: str, given: Any, expressed: Any, output: Any) -> SharedCall | None:
        """An operation that would be a layer, of an input that does not hold examples: rows for all of them."""
        if not isinstance(output, Tensor) or name in ("__getitem__", "index_select"):
            return None

        def weights_only(one: Any) -> Any:
            found = self.flow.expression(one)
            return found if found is not None and found.form <= Form.AFFINE else one

        uses = uses_of(func, *replaced(given, weights_only))
        if uses is None or len(uses) != 1 or isinstance(layer := self.layers.of(uses[0]), Elementwise):
            return None
        use = uses[0]
        own = self.flow.named(layer.parameters.values())
        return SharedCall(name_of(use.weights), layer, use.x.detach(), output, (func, *expressed), own, use.output)

    def _meet(
        self, func: Any, name: str, given: Any, expressed: Any, uses: Sequence[AffineUse] | None, output: Any
    ) -> Any:
        """An operation of the examples and of something that comes from parameters alone."""
        operands = list(inside(expressed))
        if any(p.numel() == 0 for one in operands for p in one.parameters.values()):
            self._refuse(operands, "it has no entries: there is nothing to analyse")
            self.flow.carry(name, output, given)
            return output
        wanted = {parameter for one in operands for parameter in one.parameters}
        if (
            uses
            and isinstance(output, Tensor)
            and wanted == {parameter for use in uses for one in use.weights.values() for parameter in one.parameters}
        ):
            return self._affine(name, uses, output, given)
        if not isinstance(output, Tensor) or not (output.is_floating_point() or output.is_complex()):
            if any(one.is_floating_point() for one in tensors_in(output)) or name == "__setitem__":
                self._refuse(operands, f"used by the operation '{name}', which no adapter knows")
            self.flow.carry(name, output, given)
            return output
        if name.endswith("_") and not name.startswith("__"):
            self._refuse(operands, f"used by the operation '{name}', which no adapter knows")
            self.flow.carry(name, output, given)
            return output
        return self._generic(func, name, given, expressed, output)

    def _affine(self, name: str, uses: Sequence[AffineUse], output: Tensor, given: Any) -> Tensor:
        """Record the maps of an operation, and take its gradient for all of them."""
        sinks: list[Callable[[Tensor], None]] = []
        for use in uses:
            try:
                sinks += self._sink(use, output)
            except UnsupportedLayer as reason:
                self._refuse(list(use.weights.values()), str(reason))
        if sinks:

            def sink(g: Tensor) -> None:
                for one in sinks:
                    one(g)

            output = self.recorder.tap(output, sink)
        self.flow.carry(name, output, given)
        return output

    def _sink(self, use: AffineUse, output: Tensor) -> list[Callable[[Tensor], None]]:
        """Show a map; what takes the gradient at its operation's output."""
        use = canonical(use)
        layer, rows = self.layers.of(use), self.flow.rows(use.source)
        if rows is not None and use.rows is not None:
            rows = type(rows)(rows.index[use.rows], rows.per)
        if use.x.shape[0] == 0:
            return []
        place = self._place("axis of", self.layers.name(use, layer))
        usual = None if self.batched is None else int(place in self.batched)
        call, arranged = recorded_call(layer, use.x, use.output(output), self.flow.examples, rows, usual)
        if call.axis == 1:
            self.found.add(place)
        call.watched = True
        if not pulled_back(use):
            use_name = self.layers.name(use, layer)
            self.recorder.show(use_name, call)
            return [lambda g: self.recorder.send(use_name, call, arranged(use.output(g)))]
        why = next((one.why for one in use.weights.values() if one.form is Form.OTHER), None)
        if use.key == "scale" and why is None:
            why = "a slice of it is a factor"
        self.pulled.expect(use.weights.values(), why)

        def pull(g: Tensor) -> None:
            parts = example_gradients(call, arranged(use.output(g)), self.flow.examples)
            for role, expression in use.weights.items():
                self.pulled.arrive(expression, parts[role])

        return [pull]

    def _generic(self, func: Any, name: str, given: Any, expressed: Any, output: Tensor) -> Tensor:
        """Take every example's gradient through an operation that no adapter knows."""
        operands = list(inside(expressed))
        self.flow.carry(name, output, given)
        rows = self.flow.rows(output)
        if rows is not None or output.ndim == 0 or output.shape[0] % self.flow.examples:
            self._refuse(operands, f"used by the operation '{name}', whose output has no axis of examples")
            return output
        self.pulled.expect(operands, f"no adapter knows the operation '{name}'")
        varying = {id(one) for one in tensors_in(given) if self.flow.varies(one)}

        def pull(g: Tensor) -> None:
            found = self.pulled.through(func, expressed, operands, g, varying)
            for expression, part in zip(operands, found, strict=True):
                self.pulled.arrive(expression, part)

        tapped = self.recorder.tap(output.clone(), pull)  # an operation may need its own output to go back
        self.flow.carry(name, tapped, given)
        return tapped

    def _refuse(self, operands: Iterable[Expression], why: str) -> None:
        for parameter in dict.fromkeys(name for one in operands for name in one.parameters):
            self.recorder.refuse(parameter, why)


def _added(operand: Expression, output: Tensor) -> AffineUse:
    def make(weight: Tensor) -> Bare:
        return Bare("Parameter (bias)", weight)

    x = operand.value.new_ones(()).expand(output.shape)
    return AffineUse(make, {"weight": operand}, x, x, key="bias")
