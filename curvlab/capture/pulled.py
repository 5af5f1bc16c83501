"""Per-example gradients of parameters that meet the examples through other operations, pulled back to them.

θ = f(P), computed without the examples, has a gradient g_n for every example where it meets them. What P gets of it is
(∂f/∂P)ᵀ g_n. On the way there may be layers, such as an embedding of the positions, which is the same for all examples:
the gradient at their output is then that of one more row for each of their positions and examples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from curvlab.capture.recorder import Recorder
from curvlab.capture.sample import Call, Sample, per_example_gradients
from curvlab.layers.bare import PerExample
from curvlab.layers.call_arguments import replaced
from curvlab.layers.expression import Expression, ParameterExpression, inside
from curvlab.layers.form import Form
from curvlab.layers.layer import Layer


class SharedCall(Expression):
    """The output of a layer that ran without the examples, the same for all of them.

    Args:
        name: of the use.
        layer: the layer.
        x: its prepared input.
        value: the output.
        call: the function that computed it, its arguments and its keyword arguments.
        parameters: name -> the layer's own parameters.
        output: takes the layer's output out of the function's.
    """

    def __init__(
        self,
        name: str,
        layer: Layer,
        x: Tensor,
        value: Tensor,
        call: tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]],
        parameters: Mapping[str, Tensor],
        output: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.name, self.layer, self.x, self.value = name, layer, x, value
        self.function, self.arguments, self.keywords = call
        self.pick, self.place, self.fixed, self.form = None, None, False, Form.OTHER
        self.key = ("shared", name)
        self.parameters = dict(parameters)
        self.output = output
        for one in inside((self.arguments, self.keywords)):
            self.parameters.update(one.parameters)

    @property
    def inputs(self) -> list[Expression]:
        """What its input is of parameters; its own weights are none of it."""
        own = {id(p) for p in self.layer.parameters.values()}
        given = inside((self.arguments, self.keywords))
        return [one for one in given if not own & {id(p) for p in one.parameters.values()}]


class _Leaf:
    """A parameter, or a layer that ran without the examples, with the calls that its gradients are sent to."""

    def __init__(self, name: str, call: Call) -> None:
        self.name, self.call = name, call
        self.pending = self.arrived = 0
        self.total: Tensor | None = None


class Pulled:
    """The pulled gradients of one forward pass.

    Args:
        recorder: is shown the calls.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.examples = recorder, 0
        self._leaves: dict[int, _Leaf] = {}
        self._layers: dict[str, PerExample] = {}
        self._of: dict[int, tuple[Expression, list[_Leaf]]] = {}

    def begin(self, examples: int) -> None:
        """A forward pass of so many examples begins."""
        self._leaves, self._of, self.examples = {}, {}, examples

    def begin_pass(self) -> None:
        """A backward pass begins."""
        for leaf in self._leaves.values():
            leaf.total, leaf.arrived = None, 0

    def expect(self, expressions: Iterable[Expression], why: str | None) -> None:
        """These meet the examples once more; `why` says what the operation is, None for a sum."""
        for expression in expressions:
            for leaf in self._below(expression, why):
                leaf.pending += 1

    def arrive(self, expression: Expression, gradient: Tensor) -> None:
        """The gradients `[n, *θ]` of one meeting are known."""
        totals: dict[int, Tensor] = {}
        self._down(expression, gradient, totals)
        for leaf in self._below(expression, ""):
            found = totals.get(id(leaf))
            if found is not None:
                leaf.total = found if leaf.total is None else leaf.total + found
            leaf.arrived += 1
            if leaf.arrived == leaf.pending:
                self._send(leaf)

    def flush(self) -> None:
        """The backward pass is over: some meetings had no influence on the loss."""
        for leaf in self._leaves.values():
            if 0 < leaf.arrived < leaf.pending:
                self._send(leaf)

    def through(
        self,
        function: Callable[..., Any],
        expressed: Any,
        operands: Sequence[Expression],
        g: Tensor,
        varying: Collection[int],
    ) -> list[Tensor]:
        """Every example's gradient of the operands of an operation from the gradient `(n·k, ...)` at its output.

        The operation runs again on each example's part of those arguments that hold examples, whose ids are `varying`.
        Whether it treats examples one by one, the survey has verified.
        """
        found: list[list[Tensor]] = []
        for n in range(self.examples):

            def part(one: Any, n: int = n) -> Any:
                if not isinstance(one, Tensor):
                    return one
                count = one.shape[0] // self.examples if id(one) in varying and one.ndim else 0
                return one.detach()[n * count : (n + 1) * count] if count else one.detach()

            count = g.shape[0] // self.examples
            pull = _pullback(function, replaced(expressed, part), operands)
            found.append(list(pull(g[n * count : (n + 1) * count])))
        return [torch.stack(parts) for parts in zip(*found, strict=True)]

    def _send(self, leaf: _Leaf) -> None:
        if leaf.total is not None:
            self.recorder.send(leaf.name, leaf.call, leaf.total)
        leaf.total = None

    def _below(self, expression: Expression, why: str | None) -> list[_Leaf]:
        """The leaves that an expression is made of."""
        if id(expression) not in self._of:
            found: dict[int, _Leaf] = {}
            if isinstance(expression, ParameterExpression | SharedCall):
                leaf = self._leaf(expression, why)
                found[id(leaf)] = leaf
            below = (
                expression.inputs
                if isinstance(expression, SharedCall)
                else inside((expression.arguments, expression.keywords))
            )
            reason = why
            if expression.form is Form.OTHER and not isinstance(expression, SharedCall):
                reason = expression.why
            for one in below:
                found.update({id(leaf): leaf for leaf in self._below(one, reason)})
            self._of[id(expression)] = expression, list(found.values())
        return self._of[id(expression)][1]

    def _leaf(self, expression: ParameterExpression | SharedCall, why: str | None) -> _Leaf:
        key = id(expression)
        if key not in self._leaves:
            n = self.examples
            if isinstance(expression, SharedCall):
                name, layer = expression.name, expression.layer
                lead = _lead(expression.x)
                x = lead.expand(n, *lead.shape)
                y = expression.value if expression.output is None else expression.output(expression.value)
                rows = n * (y.numel() // (layer.groups * layer.out_features))
            else:
                (name,) = expression.parameters
                layer = self._layers.setdefault(name, PerExample(expression.value, why))
                x, rows = expression.value.detach().new_ones(()).expand(n, *expression.value.shape), n
            call = Call(layer, x, 0, rows, x._version, watched=True)
            self._leaves[key] = _Leaf(name, call)
            self.recorder.show(name, call)
        return self._leaves[key]

    def _down(self, expression: Expression, g: Tensor, totals: dict[int, Tensor]) -> None:
        if isinstance(expression, ParameterExpression):
            self._add(expression, g, totals)
            return
        below: list[Expression]
        if isinstance(expression, SharedCall):
            y = expression.value
            self._add(expression, _led(y, g), totals)
            below = expression.inputs
        else:
            below = list(inside((expression.arguments, expression.keywords)))
        if not below:
            return

        def run(*arguments: Any, **keywords: Any) -> Any:
            found = expression.function(*arguments, **keywords)
            return found if expression.pick is None else found[expression.pick]

        arguments = replaced(
            (expression.arguments, expression.keywords),
            lambda one: one.value.detach() if isinstance(one, Expression) and one not in below else one,
        )
        pull = _pullback(run, arguments, below)
        for one, part in zip(below, _each(pull, g.to(expression.value.dtype)), strict=True):
            self._down(one, part, totals)

    def _add(self, expression: Expression, g: Tensor, totals: dict[int, Tensor]) -> None:
        leaf = self._leaves[id(expression)]
        held = totals.get(id(leaf))
        totals[id(leaf)] = g if held is None else held + g


def example_gradients(call: Call, g: Tensor, examples: int) -> dict[str, Tensor]:
    """Every example's gradient `[n, *tensor]` of a layer's tensors, by role, from the gradient at its output."""
    sample, layer = Sample([replace(call, g=g)], examples, g.dtype), call.layer
    gradients = per_example_gradients(layer, sample.features, sample.output_gradients)
    return layer.split(gradients)


def _pullback(
    function: Callable[..., Any], arguments: Any, operands: Sequence[Expression]
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """g ↦ (∂y/∂θ)ᵀ g for the operands θ of y = function(arguments)."""
    order = {id(one): place for place, one in enumerate(operands)}

    def run(*values: Tensor) -> Any:
        positional, keywords = replaced(
            arguments, lambda one: values[order[id(one)]] if isinstance(one, Expression) else one
        )
        return function(*positional, **keywords)

    found: Callable[[Tensor], tuple[Tensor, ...]] = torch.func.vjp(run, *(one.value.detach() for one in operands))[1]
    return found


def _each(pull: Callable[[Tensor], tuple[Tensor, ...]], g: Tensor) -> tuple[Tensor, ...]:
    """The pullback of every g_n."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # it loops, as is done below
            found: tuple[Tensor, ...] = torch.vmap(pull)(g)
    except RuntimeError:  # an operation that has no batching rule
        found = tuple(torch.stack(parts) for parts in zip(*(pull(one) for one in g), strict=True))
    return found


def _lead(x: Tensor) -> Tensor:
    """x without a first axis of one, which stands for the examples."""
    return x[0] if x.ndim and x.shape[0] == 1 else x


def _led(y: Tensor, g: Tensor) -> Tensor:
    return g.squeeze(1) if y.ndim and y.shape[0] == 1 else g
