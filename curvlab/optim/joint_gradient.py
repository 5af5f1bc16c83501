"""g = (1 − s)·g₁ + s·g₂: the mean gradient of two batches, s the second's share of all examples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class JointGradient:
    """The mean gradient of all batches that were added, which count by their number of examples.

    Attributes:
        gradients: by parameter name; empty before the first batch.
        examples: N of all batches together.
    """

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}
        self.examples = 0

    def add(self, gradients: dict[str, Tensor], examples: int) -> None:
        """One more batch: its mean gradient and its N."""
        self.examples += examples
        share = examples / self.examples
        self.gradients = gradients if share == 1 else joint_gradient(self.gradients, gradients, share)

    def take(self) -> tuple[dict[str, Tensor], int]:
        """The mean gradient and N, which are the caller's from now on: there is no batch any more."""
        taken = self.gradients, self.examples
        self.gradients, self.examples = {}, 0
        return taken


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
