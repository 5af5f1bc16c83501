"""g = (1 − s)·g₁ + s·g₂: the mean gradient of two batches, s the second's share of all examples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def joint_gradient(old: Mapping[str, Tensor], fresh: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """By parameter name; a parameter that one of the batches does not use has a zero gradient there."""
    joined: dict[str, Tensor] = {}
    for name in {**old, **fresh}:
        first, second = old.get(name), fresh.get(name)
        if first is None or second is None:
            joined[name] = fresh[name] * share if first is None else first * (1 - share)
        else:
            joined[name] = torch.lerp(first, second, share)
    return joined
