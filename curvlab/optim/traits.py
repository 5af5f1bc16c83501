"""Traits: what an optimizer's class says of itself, so that commands and comparisons need no lists of names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class Traits:
    """The attributes of a class that others ask; their defaults suit a method that needs a model's gradients alone."""

    name: ClassVar[str] = "optimizer"
    source: ClassVar[str] = ""
    """The paper it is from."""
    needs_closure: ClassVar[bool] = False
    takes_parameters: ClassVar[bool] = False
    """Whether parameters will do in place of a network: those that need gradients alone."""
    takes_complex: ClassVar[bool] = False
    """Whether parameters may be complex numbers."""
    warms: ClassVar[bool] = False
    """Whether `warm_start` has anything to measure."""
    keeps_factors: ClassVar[bool] = False
    """Whether `averages` are curvature factors that can be saved for other uses."""
    learns_from_steps: ClassVar[bool] = False
    """Whether what it preconditions with is learned of the steps it takes, so that there is nothing of it at weights
    that stay."""
    batches_joined: ClassVar[bool] = False
    """Whether all batches are those of one step where weights stay, and not of a step each."""
    averages_in_order: ClassVar[bool] = False
    """Whether its averages weigh the batches of a pass by their order, in a warm start too."""
    swept: ClassVar[str | None] = None
    """The setting that damps its directions, where another value can be tried on the same averages."""
    at_fixed_weights: ClassVar[Mapping[str, Any]] = {}
    """Settings with which it is compared where weights stay, and all data is one batch."""
