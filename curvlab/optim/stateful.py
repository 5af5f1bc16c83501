"""What can be read, saved and restored of an optimizer: counts, coverage, `state_dict`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.errors import CurvlabError
from curvlab.optim.declared import Params, settings_of
from curvlab.optim.grouped_parameters import GroupedParameters
from curvlab.optim.saved_state import check_state, hooked_state, load_hooked_state, rebuilt, restore, saved


class Stateful(GroupedParameters):
    """Counts, reports, and a state by parameter name. Arguments as in `GroupedParameters`.

    Attributes:
        steps: number of calls of `step`.
        skipped: number of batches that moved nothing because their gradient was not finite, those of a warm start
            included.
        averages: statistics by block, where a method has them.
    """

    averages: dict[str, dict[str, Tensor]]

    def __init__(
        self, model: nn.Module | Params, defaults: dict[str, Any], groups: Iterable[Mapping[str, Any]] | None = None
    ) -> None:
        super().__init__(model, defaults, groups)
        self.steps = self.skipped = 0
        self.averages = {}

    @property
    def failures(self) -> dict[str, int]:
        """Block name -> how often in a row its newest inverse failed; blocks without a failure are left out."""
        return {}

    def counters(self) -> dict[str, Any]:
        """Further numbers for a log, by name. Reading them may wait for the device."""
        return {}

    def current_damping(self) -> float | None:
        """λ or ε of the first group, as it is now; None for a method without. For a log: it may wait for the device."""
        group = self.param_groups[0]
        damping: float | None = group.get("damping", group.get("eps"))
        return damping

    def coverage(self) -> dict[str, str]:
        """Parameter name -> how it is treated."""
        return {self.names[id(p)]: self.name for p in self.parameters()}

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, by parameter name: continuing after a load equals never having stopped."""
        return hooked_state(self)

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state; tensors take their parameter's device and floating type.

        Raises:
            CurvlabError: it is of another optimizer, or of a model with other parameters. Nothing has changed then.
        """
        load_hooked_state(self, state_dict)

    def saved_state(self) -> dict[str, Any]:
        """What `state_dict` holds; optimizers with more state add to it."""
        return saved(self)

    def restore_state(self, state_dict: Mapping[str, Any]) -> None:
        """The inverse of `saved_state`."""
        shapes = {self.names[id(p)]: list(p.shape) for p in self.parameters()}
        check_state(self.name, state_dict, shapes, settings_of(type(self)))
        restore(self, state_dict)

    def __deepcopy__(self, memo: Any) -> Any:
        """An optimizer is tied to its model: make one for the copied model and load this one's state."""
        raise CurvlabError(
            f"{self.name} cannot be copied", "it is tied to its model", "load its state_dict into a new one"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Constructor's arguments and state, the model with them; groups are part of the state."""
        args, kwargs = self._given
        settings = {name: value for name, value in kwargs.items() if name not in ("model", "groups")}
        return rebuilt, (type(self), self.model, args[1:], settings, self.saved_state())
