"""LayerInverses: H_A and H_G of all layers of a model, from their start through the updates of every step (Ren 2022,
Alg. 9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import State
from curvlab.linalg.bfgs import times
from curvlab.linalg.grouped_product import grouped_product
from curvlab.operators.operator import Operator
from curvlab.operators.product import along
from curvlab.optim.kbfgs.inverses import output_inverse, replace_input, started, update_input, update_output
from curvlab.optim.kbfgs.recipe import Recipe, Shown, difference
from curvlab.shapes import Float

Damping = Callable[[PreconditionerBlock], float]
"""λ of a layer."""


@dataclass(frozen=True)
class Before:
    """What a step's batches showed of a layer before it: h̄, `output_gradient`, (λ_A, λ_G), (s_A, y_A) or A itself."""

    h: Tensor
    g: Tensor
    dampings: tuple[float, float]
    pair: tuple[Tensor, Tensor] | None
    moment: Tensor | None


class LayerInverses:
    """The inverses of all layers.

    Args:
        recipe: of the method.

    Attributes:
        states: layer -> its inverses and pairs (`curvlab.optim.kbfgs.inverses`).
        averages: layer -> A as "input", where it is averaged.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.states: dict[str, State] = {}
        self.averages: dict[str, State] = {}
        self._outputs: dict[str, Operator] = {}
        self._warmed: dict[str, tuple[int, float]] = {}
        """Layer -> N and T of a warm start."""

    def restore(self, states: Mapping[str, State], averages: Mapping[str, State]) -> None:
        """Go on from these."""
        self.states, self._outputs, self._warmed = dict(states), {}, {}
        self.averages.clear()
        self.averages.update(averages)

    def shows(self, unit: PreconditionerBlock) -> dict[str, bool]:
        """What of a batch is needed for this layer: arguments of `shown`."""
        return {
            "inputs": not self.recipe.forms_moment,
            "second": self.recipe.forms_moment or unit.name not in self.states,
        }

    def product(self, unit: PreconditionerBlock, matrix: Float[Tensor, "g o j"]) -> Float[Tensor, "g o j"]:
        """H_G M H_A."""
        left = along(self._output(unit.name), matrix.reshape(1, -1, matrix.shape[2])).view_as(matrix)
        return grouped_product(left, self.states[unit.name]["input"])

    def before(
        self,
        units: Sequence[PreconditionerBlock],
        showing: Mapping[str, Shown],
        weights: Mapping[str, Tensor],
        damping: Damping,
    ) -> dict[str, Before]:
        """What to remember of every layer until the second sample; layers without inverses start with this batch's A.

        Args:
            units: layers the batches have shown.
            showing: what they have shown.
            weights: by parameter name, before the step.
            damping: λ by layer.
        """
        moments = {unit.name: self._moment(unit.name, showing[unit.name]) for unit in units}
        new = [unit for unit in units if unit.name not in self.states]
        self._start(new, moments, {unit.name: showing[unit.name].positions for unit in new}, damping)
        return {
            unit.name: self._look(unit, showing[unit.name], moments[unit.name], weights, damping)
            for unit in units
            if unit.name in self.states
        }

    def learn(self, unit: PreconditionerBlock, before: Before, after: Shown, weights: Mapping[str, Tensor]) -> None:
        """Update H_A and H_G by what the second sample shows, with the weights after the step."""
        state, inverse = self.states[unit.name], self._output(unit.name)
        damped_a, damped_g = before.dampings
        if before.pair is not None:
            update_input(state, *before.pair)
        elif before.moment is not None:
            replace_input(state, before.moment, damped_a)
        s = after.output(_assembled(unit, weights, before.h)) - before.h
        update_output(
            self.recipe, state, inverse, (s, difference(before.g, after.output_gradient), before.g[0]), damped_g
        )
        self._outputs.pop(unit.name)

    def absorb(self, showing: Mapping[str, Shown]) -> None:
        """A batch of a warm start joins the mean of A."""
        for name, one in showing.items():
            past, _ = self._warmed.get(name, (0, 1.0))
            total, fresh = past + one.examples, one.moment()
            old = self.averages[name]["input"] if past else fresh
            self.averages[name] = {"input": torch.lerp(old, fresh, one.examples / total)}
            self._warmed[name] = total, one.positions

    def warmed(self, units: Sequence[PreconditionerBlock], damping: Damping) -> None:
        """The end of a warm start: inverses start from the mean of A, which stays where A is averaged."""
        known = [unit for unit in units if unit.name in self._warmed]
        moments = {unit.name: self.averages[unit.name]["input"] for unit in known}
        self._start(known, moments, {name: positions for name, (_, positions) in self._warmed.items()}, damping)
        if self.recipe.moment == "minibatch":
            self.averages.clear()
        self._outputs, self._warmed = {}, {}

    def _moment(self, name: str, showing: Shown) -> Tensor | None:
        """A of this step, averaged where the recipe says so; None where it is not formed."""
        if showing.second is None:
            return None
        fresh = showing.moment()
        if self.recipe.moment == "averaged":
            if name in self.averages:
                old = self.averages[name]["input"]
                fresh = torch.lerp(fresh, old, self.recipe.decay).where(fresh.sum().isfinite(), old)
            self.averages[name] = {"input": fresh}
        return fresh

    def _start(
        self,
        units: Sequence[PreconditionerBlock],
        moments: Mapping[str, Tensor | None],
        positions: Mapping[str, float],
        damping: Damping,
    ) -> None:
        known = [(unit, a) for unit in units if (a := moments[unit.name]) is not None]
        lambdas = [self.recipe.dampings(damping(unit), positions[unit.name]) for unit, _ in known]
        states = started(self.recipe, [a for _, a in known], [unit.shape[1] for unit, _ in known], lambdas)
        for (unit, _), state in zip(known, states, strict=True):
            if state is not None:
                self.states[unit.name] = state
            else:  # what is not finite is no A to go on with
                self.averages.pop(unit.name, None)

    def _look(
        self,
        unit: PreconditionerBlock,
        showing: Shown,
        moment: Tensor | None,
        weights: Mapping[str, Tensor],
        damping: Damping,
    ) -> Before:
        dampings = self.recipe.dampings(damping(unit), showing.positions)
        h = showing.output(_assembled(unit, weights, showing.features))
        if self.recipe.exact:
            return Before(h, showing.output_gradient, dampings, None, moment)
        s = times(self.states[unit.name]["input"], showing.feature)
        # In the first step A has been formed though the recipe multiplies with it unformed: the same numbers.
        action = showing.action(s) if moment is None else times(moment, s)
        return Before(h, showing.output_gradient, dampings, (s, action + dampings[0] * s), None)

    def _output(self, name: str) -> Operator:
        """H_G."""
        if name not in self._outputs:
            self._outputs[name] = output_inverse(self.states[name])
        return self._outputs[name]


def _assembled(unit: PreconditionerBlock, weights: Mapping[str, Tensor], like: Tensor) -> Float[Tensor, "g o j"]:
    return unit.assemble(weights).to(like.dtype)
