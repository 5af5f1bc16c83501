"""Parameters used outside a layer module: `x + self.bias`, `h @ self.table.weight.t()` and the experts of a batched
product become layers too.

What an operation computes of parameters alone is followed as an `Expression` until it meets the examples. Where it
meets them in an operation that layers/operations has an adapter for, it is an affine map like a module's; elsewhere the
gradient of every example is taken through the operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from curvlab.capture.dataflow import CONSTANT, EXAMPLES, Dataflow, tensors_in
from curvlab.capture.first_look import FirstLook
from curvlab.capture.meeting import Meeting, added
from curvlab.capture.operation_layers import OperationLayers, name_of
from curvlab.capture.pulled import Pulled, SharedCall
from curvlab.capture.recorder import Recorder
from curvlab.capture.torch_calls import CONSTANTS, EXPANSIONS, LIKE, LOOKS, operation_name
from curvlab.errors import CurvlabError, RecordingFault
from curvlab.layers.bare import broadcast_over_examples
from curvlab.layers.call_arguments import replaced
from curvlab.layers.elementwise import Elementwise
from curvlab.layers.expression import Expression, inside
from curvlab.layers.form import CASTS, Form
from curvlab.layers.layer import Layer
from curvlab.layers.operations.operation import uses_of


class FunctionalUses(TorchFunctionMode):
    """Watches torch calls for the model's own parameters while no adapted module is running.

    Args:
        flow: marks of tensors.
        recorder: is shown what is found.
        look: where tensors hold examples, as the survey has decided it.

    Attributes:
        constant: parameters that were used where no gradient comes back.
    """

    def __init__(self, flow: Dataflow, recorder: Recorder, look: FirstLook) -> None:
        super().__init__()
        self.flow, self.look, self.layers, self.pulled = flow, look, OperationLayers(), Pulled(recorder)
        self.meeting = Meeting(flow, recorder, self.layers, self.pulled, look)
        self.constant: set[str] = set()
        self.inside = 0  # depth of adapted modules, whose own hooks record what they compute

    def enter(self, *_: Any) -> None:
        """Hook before an adapted module runs."""
        self.inside += 1

    def leave(self, *_: Any) -> None:
        """Hook after an adapted module has run."""
        self.inside -= 1

    def begin(self, inputs: Any, examples: int) -> None:
        """A call of the model begins."""
        self.inside = 0
        self.look.begin()
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
            return self._followed(name, expressed, output, lambda: self._derive(func, name, given, expressed, output))
        # Before the call: an operation in place overwrites what its map is given.
        uses = self._followed(name, expressed, None, lambda: uses_of(func, *expressed))
        output = func(*args, **kwargs)
        return self._followed(
            name, expressed, output, lambda: self.meeting.meet(func, name, given, expressed, uses, output)
        )

    def _followed(self, name: str, expressed: Any, otherwise: Any, record: Callable[[], Any]) -> Any:
        """What `record` returns. What goes wrong in it is told of the parameters where the network is surveyed, and
        `otherwise` is returned; afterwards it is a fault."""
        try:
            return record()
        except (CurvlabError, RecordingFault, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            if not self.look.deciding:
                raise RecordingFault(f"{said}, while following the operation '{name}'") from error
            why = f"used by the operation '{name}', which could not be followed: {said}"
            self.meeting.refuse(inside(expressed), why)
            return otherwise

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
            self.meeting.refuse(operands, f"it is overwritten by '{name}'")
            return output
        if name in EXPANSIONS and isinstance(output, Tensor) and self._over_examples(operands[0], output):
            return self.meeting.affine(name, [added(operands[0], output)], output, given)
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
        value, place = operand.value, self.look.place("repeat", *operand.parameters)
        longer = output.ndim > value.ndim or (output.ndim == value.ndim and value.shape[0] == 1)
        along = longer and output.shape[0] == self.flow.examples and broadcast_over_examples(value, output)
        return along and self.look.agreed(place, guess=True)

    def _mark_unknown(self, tensors: list[Tensor]) -> None:
        """Tensors that no call has made, such as attributes of modules, hold examples if their first axis says so."""
        for one in tensors:
            if self.flow.get(one) is None:
                along = one.ndim > 0 and one.shape[0] == self.flow.examples
                holds = self.look.agreed(self.look.place("outside"), along)
                self.flow.put(one, EXAMPLES if holds else CONSTANT)

    def _mark_batched(self, place: str, tensors: list[Tensor]) -> None:
        """Constants that were made with an axis of examples hold them as inputs do."""
        place = self.look.place(place)
        constants = [one for one in tensors if one.ndim > 1 and self.flow.is_made(one)]
        along = [one for one in constants if one.shape[0] == self.flow.examples]
        if along and not any(self.flow.varies(one) for one in tensors) and self.look.agreed(place, guess=True):
            for one in along:
                self.flow.put(one, EXAMPLES)

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
