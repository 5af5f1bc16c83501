"""The parameters of an optimizer: by name, and in groups that may have settings of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.errors import CurvlabError
from curvlab.fields import tupled
from curvlab.optim.declared import Params, check_call, check_group, instead, settings_of
from curvlab.optim.loose_parameters import gathered
from curvlab.optim.parameter_groups import parameter_groups
from curvlab.optim.traits import Traits
from curvlab.optim.usable_model import refuse_unusable

Named = dict[str, Tensor]
"""Tensors by parameter name."""


class GroupedParameters(Traits, torch.optim.Optimizer):
    """`param_groups` and `state` as in torch.optim, and the names that a model gives its parameters.

    Args:
        model: the network; frozen parameters are left alone. Parameters without one where `takes_parameters`.
        defaults: hyper-parameters of every group that does not set them.
        groups: parameter groups as `{"params": [names or parameters], "lr": ...}`; the rest of the parameters form
            one more. None: one group of all parameters.

    Attributes:
        model: the network; of parameters without one, a module that holds them and cannot be run.
        names: the name of every parameter, by its `id`.
    """

    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Judges what the constructor is given by what it declares; a pickled optimizer is made of it again."""
        if args or kwargs:
            check_call(cls, args, kwargs)
        made = super().__new__(cls)
        made._given = args, kwargs
        return made

    def __init__(
        self, model: nn.Module | Params, defaults: dict[str, Any], groups: Iterable[Mapping[str, Any]] | None = None
    ) -> None:
        self.model, groups = gathered(self.name, model, groups)
        self.names = {id(p): name for name, p in self.model.named_parameters()}
        self._made = False
        super().__init__(parameter_groups(self.model, groups), tupled(defaults))
        self._made = True
        for group in self.param_groups:
            check_group(type(self), group)
        refuse_unusable(self)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group as in torch; a group may set this optimizer's own hyper-parameters.

        Raises:
            CurvlabError: another setting, a value out of bounds, or a parameter that is not the model's.
        """
        parameters = param_group["params"]
        if any(id(p) not in self.names for p in ([parameters] if isinstance(parameters, Tensor) else parameters)):
            raise CurvlabError(f"{self.name}: a parameter group holds a tensor that is no parameter of the model")
        unknown = sorted(set(param_group) - {*self.defaults, "params"})
        if unknown and not self._made:  # later, schedulers keep notes of their own in groups
            why, do = instead(settings_of(type(self)), unknown[0])
            raise CurvlabError(
                f"{self.name}: a parameter group sets {unknown[0]!r}",
                why,
                do if why else f"it can set {', '.join(self.defaults)}",
            )
        check_group(type(self), param_group)
        super().add_param_group(tupled(param_group) | {"params": parameters})

    def parameters(self) -> list[Tensor]:
        """All parameters of all groups."""
        return [p for group in self.param_groups for p in group["params"]]

    def trainable(self) -> Named:
        """The parameters that are not frozen, by name."""
        return {self.names[id(p)]: p for p in self.parameters() if p.requires_grad}

    def by_group(self, tensors: Mapping[str, Tensor]) -> Iterator[tuple[dict[str, Any], list[str], list[Tensor]]]:
        """(group, names, parameters) of every group that has trainable parameters among the names of `tensors`."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.requires_grad and self.names[id(p)] in tensors]
            if parameters:
                yield group, [self.names[id(p)] for p in parameters], parameters

    def group_of(self, block: PreconditionerBlock) -> Mapping[str, Any]:
        """The parameter group of the block's first parameter."""
        first = next(iter(block.parameters.values()))
        return next(g for g in self.param_groups for p in g["params"] if self.names[id(p)] == first)

    def heavy_ball(self, gradients: Named) -> Named:
        """m ← μm + g for every parameter with a gradient; returns m (the buffers themselves)."""
        moved: Named = {}
        for group, names, parameters in self.by_group(gradients):
            states = [self.state[p] for p in parameters]
            for p, state in zip(parameters, states, strict=True):
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
            buffers = [state["momentum"] for state in states]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, [gradients[name] for name in names])
            moved.update(zip(names, buffers, strict=True))
        return moved

    def full_precision(self) -> contextlib.AbstractContextManager[Any]:
        """Whatever autocast the forward runs under, statistics and directions keep the parameters' own type."""
        return torch.autocast(self.parameters()[0].device.type, enabled=False)
