"""Needs: which statistics of the data an analysis reads. One pass over the data collects what all of them need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce


@dataclass(frozen=True)
class Needs:
    """Statistics of the data pass, in the scales of docs/curvature.md; the settings say how each is taken.

    Attributes:
        features: μ and M = E[aaᵀ] of every layer's inputs.
        output_gradients: second moments of the gradients at every layer's outputs, and what K-FAC's `kfac_approx` needs
            beside them.
        tensors: the contractions of every parameter's gradient over all modes but one.
        curvatures: names of registered curvatures whose averages are needed.
        mean_gradient: names of the parameters whose mean gradient over the data is needed.
    """

    features: bool = False
    output_gradients: bool = False
    tensors: bool = False
    mean_gradient: frozenset[str] = frozenset()
    curvatures: frozenset[str] = frozenset()

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            self.features or other.features,
            self.output_gradients or other.output_gradients,
            self.tensors or other.tensors,
            self.mean_gradient | other.mean_gradient,
            self.curvatures | other.curvatures,
        )

    @property
    def layer_gradients(self) -> bool:
        """Whether a layer that no gradient reaches cannot have them."""
        return self.output_gradients or self.tensors or bool(self.curvatures)


def together(needs: Iterable[Needs]) -> Needs:
    """What any of them needs."""
    return reduce(Needs.__or__, needs, Needs())
