"""Saved states: what every optimizer saves, whether a state fits, and how a model of another device takes it over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from curvlab.errors import CurvlabError
from curvlab.fields import Field, renamed

if TYPE_CHECKING:
    from curvlab.optim.stateful import Stateful


def saved(optimizer: Stateful) -> dict[str, Any]:
    """Name, shapes, counts, groups and the state of every parameter, by parameter name."""
    names = optimizer.names
    return {
        "optimizer": optimizer.name,
        "shapes": {names[id(p)]: list(p.shape) for p in optimizer.parameters()},
        "steps": optimizer.steps,
        "skipped": optimizer.skipped,
        "state": {names[id(p)]: dict(values) for p, values in optimizer.state.items()},
        "param_groups": [{**g, "params": [names[id(p)] for p in g["params"]]} for g in optimizer.param_groups],
    }


def restore(optimizer: Stateful, state: Mapping[str, Any]) -> None:
    """Put back what `saved` gave; `check_state` has found that it fits."""
    byname = dict(optimizer.model.named_parameters())
    optimizer.steps, optimizer.skipped = state["steps"], state["skipped"]
    optimizer.param_groups = [{**g, "params": [byname[n] for n in g["params"]]} for g in state["param_groups"]]
    optimizer.state.clear()
    for name, values in state["state"].items():
        optimizer.state[byname[name]] = moved(dict(values), byname[name])


def hooked_state(optimizer: Stateful) -> dict[str, Any]:
    """`optimizer.saved_state()` between the hooks that were registered for `state_dict`, as in torch.optim."""
    for before in optimizer._optimizer_state_dict_pre_hooks.values():
        before(optimizer)
    state = optimizer.saved_state()
    for after in optimizer._optimizer_state_dict_post_hooks.values():
        replaced = after(optimizer, state)
        state = state if replaced is None else replaced
    return state


def load_hooked_state(optimizer: Stateful, state: Mapping[str, Any]) -> None:
    """`optimizer.restore_state` between the hooks that were registered for `load_state_dict`, as in torch.optim."""
    state = dict(state)
    for before in optimizer._optimizer_load_state_dict_pre_hooks.values():
        replaced = before(optimizer, state)
        state = state if replaced is None else dict(replaced)
    optimizer.restore_state(state)
    for after in optimizer._optimizer_load_state_dict_post_hooks.values():
        after(optimizer)


def rebuilt(
    kind: type[Stateful], model: Any, args: tuple[Any, ...], settings: dict[str, Any], state: dict[str, Any]
) -> Stateful:
    """What a pickled optimizer becomes: one made as it was, with its state."""
    made: Any = kind
    optimizer: Stateful = made(model, *args, **settings)
    with torch.no_grad():
        optimizer.restore_state(state)
    return optimizer


def moved(value: Any, like: Tensor) -> Any:
    """Copies of all tensors in nested dictionaries and lists, with the device and floating type of `like`."""
    if isinstance(value, Tensor):
        real = torch.promote_types(like.dtype.to_real(), torch.float32)
        kind = real if value.is_floating_point() else real.to_complex() if value.is_complex() else value.dtype
        return value.to(like.device, like.dtype if value.dtype == like.dtype else kind).clone()
    if isinstance(value, dict):
        return {key: moved(one, like) for key, one in value.items()}
    return [moved(one, like) for one in value] if isinstance(value, list) else value


def check_state(
    name: str, state: Mapping[str, Any], shapes: Mapping[str, list[int]], settings: Mapping[str, Field]
) -> None:
    """Raise unless `state` is this optimizer's, for parameters of these shapes and with settings of these names."""
    if state.get("optimizer") != name:
        raise CurvlabError(f"a state of {state.get('optimizer')!r} cannot be loaded into {name}")
    missing = {"shapes", "steps", "skipped", "state", "param_groups"} - set(state)
    if missing:
        raise CurvlabError(f"the state of {name} has no {sorted(missing)[0]!r}", "it is not whole")
    for key in {key: None for group in state["param_groups"] for key in group}:
        if said := renamed(settings, key):
            why, _, do = said.partition(": ")
            raise CurvlabError(f"the saved state of {name} has the setting {key!r}", why, f"{do} in its param_groups")
    different = [n for n in {**state["shapes"], **shapes} if state["shapes"].get(n) != shapes.get(n)]
    if different:
        has, wants = (
            "does not have" if known.get(different[0]) is None else f"has with the shape {known[different[0]]}"
            for known in (state["shapes"], shapes)
        )
        raise CurvlabError(f"the saved state {has} the parameter {different[0]!r}", f"the model {wants} it")
