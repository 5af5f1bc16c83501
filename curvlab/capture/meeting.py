"""Meeting: an operation of the examples and of something that is computed of parameters alone.

Where an adapter knows the operation, y = W̄ ā is recorded like a module's map. Elsewhere the gradient g of every example
is taken through it: (∂y/∂θ)ᵀ g.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from curvlab.capture.dataflow import Dataflow, tensors_in
from curvlab.capture.first_look import FirstLook
from curvlab.capture.gathered import recorded_call
from curvlab.capture.operation_layers import OperationLayers, pulled_back
from curvlab.capture.pulled import Pulled, example_gradients
from curvlab.capture.recorder import Recorder
from curvlab.errors import UnsupportedLayer
from curvlab.layers.bare import Bare
from curvlab.layers.expression import Expression, inside
from curvlab.layers.form import Form
from curvlab.layers.operations.linear import canonical
from curvlab.layers.operations.operation import AffineUse


class Meeting:
    """Records what parameters do to the examples.

    Args:
        flow: marks of tensors.
        recorder: is shown what is found.
        layers: those of operations.
        pulled: gradients that are pulled back to parameters.
        look: where tensors hold examples.
    """

    def __init__(
        self, flow: Dataflow, recorder: Recorder, layers: OperationLayers, pulled: Pulled, look: FirstLook
    ) -> None:
        self.flow, self.recorder, self.layers, self.pulled, self.look = flow, recorder, layers, pulled, look

    def meet(
        self, func: Any, name: str, given: Any, expressed: Any, uses: Sequence[AffineUse] | None, output: Any
    ) -> Any:
        """An operation of the examples and of something that comes from parameters alone."""
        operands = list(inside(expressed))
        if any(p.numel() == 0 for one in operands for p in one.parameters.values()):
            self.refuse(operands, "it has no entries: there is nothing to analyse")
            self.flow.carry(name, output, given)
            return output
        wanted = {parameter for one in operands for parameter in one.parameters}
        if (
            uses
            and isinstance(output, Tensor)
            and wanted == {parameter for use in uses for one in use.weights.values() for parameter in one.parameters}
        ):
            return self.affine(name, uses, output, given)
        if not isinstance(output, Tensor) or not (output.is_floating_point() or output.is_complex()):
            if any(one.is_floating_point() for one in tensors_in(output)) or name == "__setitem__":
                self.refuse(operands, f"used by the operation '{name}', which no adapter knows")
            self.flow.carry(name, output, given)
            return output
        if name.endswith("_") and not name.startswith("__"):
            self.refuse(operands, f"used by the operation '{name}', which no adapter knows")
            self.flow.carry(name, output, given)
            return output
        return self._generic(func, name, given, expressed, output)

    def affine(self, name: str, uses: Sequence[AffineUse], output: Tensor, given: Any) -> Tensor:
        """Record the maps of an operation, and take its gradient for all of them."""
        sinks: list[Callable[[Tensor], None]] = []
        for use in uses:
            try:
                sinks += self._sink(use, output)
            except UnsupportedLayer as reason:
                self.refuse(list(use.weights.values()), str(reason))
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
        name = self.layers.name(use, layer)
        place = self.look.place("axis of", name)
        usual = None if self.look.deciding else int(self.look.agreed(place, guess=False))
        call, arranged = recorded_call(layer, use.x, use.output(output), self.flow.examples, rows, usual)
        self.look.agreed(place, call.axis == 1)
        call.watched = True
        if not pulled_back(use):
            self.recorder.show(name, call)
            return [lambda g: self.recorder.send(name, call, arranged(use.output(g)))]
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
            self.refuse(operands, f"used by the operation '{name}', whose output has no axis of examples")
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

    def refuse(self, operands: Iterable[Expression], why: str) -> None:
        """Tell of every parameter in the operands why it is not measured."""
        for parameter in dict.fromkeys(name for one in operands for name in one.parameters):
            self.recorder.refuse(parameter, why)


def added(operand: Expression, output: Tensor) -> AffineUse:
    """A parameter that is repeated for every example, as one that is added to each."""

    def make(weight: Tensor) -> Bare:
        return Bare("Parameter (bias)", weight)

    x = operand.value.new_ones(()).expand(output.shape)
    return AffineUse(make, {"weight": operand}, x, x, key="bias")
