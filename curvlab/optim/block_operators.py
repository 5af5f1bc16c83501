"""BlockOperators: the damped inverses in use, each with the step it was made at and the failures since."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import Curvature, State
from curvlab.operators.hermitian import embedded
from curvlab.operators.operator import Grouped, Operator
from curvlab.operators.pack import pack, unpack
from curvlab.operators.power import reason
from curvlab.operators.product import product
from curvlab.optim.grouped_parameters import Named
from curvlab.optim.last_good import Kept, LastGood
from curvlab.optim.saved_state import moved
from curvlab.optim.working_type import widened

SettingsOf = Callable[[PreconditionerBlock], Mapping[str, Any]]
"""The settings of a block's parameter group, "damping" among them."""


class BlockOperators(LastGood[Operator]):
    """P of every block, made of the averages of a curvature's statistics.

    Args:
        curvature: the recipe.
        dtype: of the operators.
        settings_of: of a block.

    Attributes:
        refreshed: the step of the last `refresh`.
    """

    def __init__(self, curvature: Curvature, dtype: torch.dtype, settings_of: SettingsOf) -> None:
        super().__init__()
        self.curvature, self.dtype, self.settings_of = curvature, dtype, settings_of
        self.refreshed = 0

    def refresh(self, blocks: Sequence[PreconditionerBlock], averages: Mapping[str, State], step: int) -> None:
        """Make the operators of all blocks; a failed one keeps the last good, the fourth failure in a row is an error.

        Raises:
            NumericalError: names the block, the step and the condition of its factors.
        """
        known = [one for one in blocks if one.name in averages]
        states = [averages[one.name] for one in known]
        made = self.curvature.operators(known, states, [self.settings_of(one) for one in known])
        self.refreshed = step
        for one, state, operator in zip(known, states, made, strict=True):
            self.update(one.name, step, operator, lambda state=state: _worst(state))  # type: ignore[misc]

    def follow(self, blocks: Sequence[PreconditionerBlock], averages: Mapping[str, State]) -> None:
        """Between two calls of `refresh`: what a recipe renews at little cost (EKFAC its eigenvalues)."""
        for one in blocks:
            renewed = self.curvature.renew(averages.get(one.name, {}), self.settings_of(one))
            if renewed is not None and one.name in self.blocks:
                kept = self.blocks[one.name]
                self.blocks[one.name] = Kept(renewed, kept.step, kept.failures)

    def product(self, block: PreconditionerBlock, gradients: Named) -> Named:
        """P g by parameter name; nothing where the block has no operator or one of its gradients is missing.

        For a part of a parameter it is P g − g of the part, and zero elsewhere: what is to be added to the gradient.
        """
        kept = self.blocks.get(block.name)
        if kept is None or kept.value is None or any(name not in gradients for name in block.parameters.values()):
            return {}
        assembled = widened(block.assemble(gradients), self.dtype)
        preconditioned = product(kept.value, assembled)
        if block.is_part:
            preconditioned = preconditioned - assembled
        parts = block.take_apart(preconditioned, gradients)
        return {name: part.to(gradients[name].dtype) for name, part in parts.items()}

    def saved(self) -> dict[str, dict[str, Any]]:
        """Plain data: block name -> {"value", "step", "failures"}; the value is None where there never was one."""
        return {
            name: {
                "value": None if kept.value is None else pack(kept.value),
                "step": kept.step,
                "failures": kept.failures,
            }
            for name, kept in self.blocks.items()
        }

    def restore(self, saved: Mapping[str, Mapping[str, Any]], like: Tensor) -> None:
        """Go on with what `saved` gave, on the device and in the floating type of `like`."""
        self.blocks = {
            name: Kept(None if kept["value"] is None else unpack(kept["value"]), kept["step"], kept["failures"])
            for name, kept in moved(dict(saved), like).items()
        }


def _worst(state: State) -> str:
    """What is wrong with averages whose inverse failed, in words."""
    stacks = [value.reshape(-1, *value.shape[-2:]) for value in state.values() if value.ndim > 1]
    square = [stack for stack in stacks if stack.shape[-1] == stack.shape[-2]]
    reasons = [reason(Grouped(torch.stack([embedded(matrix) for matrix in stack]))) for stack in square]
    return "; ".join(reasons) or "its statistics are not positive definite"
