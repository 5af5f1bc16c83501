"""`params` as torch.optim takes them: tensors, named tensors, or groups, which need no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from curvlab.errors import CurvlabError

Groups = list[dict[str, Any]] | None


class LooseParameters(nn.Module):
    """Parameters by name that belong to no network: it has nothing to run.

    Args:
        named: name -> parameter.
    """

    def __init__(self, named: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._named = dict(named)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """In the order they were given."""
        for name, p in self._named.items():
            yield f"{prefix}.{name}" if prefix else name, p


def gathered(optimizer: str, params: Any, groups: Any) -> tuple[nn.Module, Any]:
    """The model, or what stands for one, and the groups.

    Args:
        optimizer: its name, for messages.
        params: a model; or tensors, (name, tensor) pairs, or groups of such with settings of their own.
        groups: as given by name; with groups among `params` there may be none.

    Raises:
        CurvlabError: it is none of these.
    """
    if isinstance(params, nn.Module):
        return params, groups
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        found = f"{optimizer} was given a {type(params).__name__}"
        raise CurvlabError(found, "it takes a model, tensors, or groups of tensors", "give model.parameters()")
    items = list(params)
    if not items:
        raise CurvlabError(f"{optimizer} was given no parameters", "there is nothing to optimize")
    if not any(isinstance(item, Mapping) for item in items):
        return LooseParameters(_named(optimizer, items, 0)), groups
    if groups is not None:
        raise CurvlabError(f"{optimizer} was given groups twice", "among params and as groups", "give them once")
    named: dict[str, Tensor] = {}
    made = []
    for item in items:
        if not isinstance(item, Mapping) or "params" not in item:
            raise CurvlabError(f"{optimizer} was given a group without 'params'", "", "write {'params': [...], ...}")
        inside = item["params"]
        own = _named(optimizer, [inside] if isinstance(inside, Tensor) else list(inside), len(named))
        named |= own
        made.append({**item, "params": list(own.values())})
    return LooseParameters(named), made


def _named(optimizer: str, items: list[Any], first: int) -> dict[str, Tensor]:
    """By their own names, or by their places."""
    pairs = [item if isinstance(item, tuple) else (str(place), item) for place, item in enumerate(items, first)]
    wrong = [type(p).__name__ for _, p in pairs if not isinstance(p, Tensor)]
    if wrong:
        raise CurvlabError(f"{optimizer} was given a {wrong[0]} among its parameters", "they must be tensors")
    return {str(name): p for name, p in pairs}
