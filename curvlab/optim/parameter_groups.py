"""Parameter groups from names or parameters, as `torch.optim` keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from curvlab.errors import CurvlabError


def parameter_groups(model: nn.Module, groups: Iterable[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """The groups as given, with parameters in place of names, and one more of all parameters in none of them.

    Args:
        model: whose parameters they are.
        groups: `{"params": [names or parameters], "lr": ..., ...}` each.

    Raises:
        CurvlabError: a group has no "params" or one of them twice, a name is not of the model, or the model has no
            parameters.
    """
    byname = dict(model.named_parameters())
    made: list[dict[str, Any]] = []
    taken: set[int] = set()
    for group in groups or ():
        if "params" not in group:
            raise CurvlabError("a parameter group has no 'params'", "", "name its parameters: {'params': [...], ...}")
        chosen: list[nn.Parameter] = []
        for item in [group["params"]] if isinstance(group["params"], str | nn.Parameter) else group["params"]:
            if isinstance(item, str) and item not in byname:
                raise CurvlabError(f"a parameter group names {item!r}", "the model has no such parameter")
            p = byname[item] if isinstance(item, str) else item
            if any(p is other for other in chosen):
                name = next((name for name, own in byname.items() if own is p), "a parameter")
                raise CurvlabError(f"a parameter group names {name!r} twice", "it would take every step twice")
            chosen.append(p)
        taken.update(id(p) for p in chosen)
        made.append({**group, "params": chosen})
    rest = [p for p in byname.values() if id(p) not in taken]
    if rest:
        made.append({"params": rest})
    if not made:
        raise CurvlabError("the model has no parameters", "there is nothing to optimize")
    return made
