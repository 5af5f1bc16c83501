"""Checks that an optimizer can step on its model: one device, real parameters, numbers, and the type of its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from curvlab.errors import CurvlabError

if TYPE_CHECKING:
    from curvlab.optim.grouped_parameters import GroupedParameters

TypeAndDevice = tuple[torch.dtype, torch.device]


def type_and_device(optimizer: GroupedParameters) -> TypeAndDevice:
    """Of the first parameter, which stands for all."""
    first = optimizer.parameters()[0]
    return first.dtype, first.device


def refuse_unusable(optimizer: GroupedParameters) -> None:
    """Raise where parameters are on several devices, or complex beside a method of real ones."""
    parameters = optimizer.parameters()
    devices = sorted({str(p.device) for p in parameters})
    if len(devices) > 1:
        found = f"{optimizer.name}: the model's parameters are on {' and '.join(devices)}"
        raise CurvlabError(found, "one device is needed")
    complex_ = [optimizer.names[id(p)] for p in parameters if p.is_complex() and p.requires_grad]
    if complex_ and not optimizer.takes_complex:
        raise CurvlabError(
            f"{optimizer.name}: the parameter {complex_[0]!r} is complex",
            "its curvature is of real parameters",
            "use sgd, adam, adamw, rmsprop or shampoo, or freeze it",
        )


def refuse_changed(optimizer: GroupedParameters, made_for: TypeAndDevice) -> None:
    """Raise where there is no number to step on, or the state is of another type or device than the model now."""
    now = type_and_device(optimizer)
    if now[1].type == "meta":
        found = f"{optimizer.name}: the model is on the meta device"
        raise CurvlabError(found, "its weights have no numbers", "build it on a real device")
    for mine, before in zip(now, made_for, strict=True):
        if mine != before:
            raise CurvlabError(
                f"{optimizer.name}: the model's parameters are {mine} now, and were {before}",
                "the optimizer's state is of the latter",
                "make a new one and load the state_dict of this one into it",
            )
