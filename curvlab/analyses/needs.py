"""Needs: which averages over the data an analysis reads. One pass over the data collects what all of them need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce

from curvlab.curvatures.curvature import Curvature
from curvlab.errors import CurvlabError


@dataclass(frozen=True)
class Needs:
    """What an analysis reads of the data, in the scales of docs/curvature.md.

    Attributes:
        curvatures: recipes whose averages are needed; two analyses that need one of the same name share it, and its
            rows, where one of them keeps rows: read `BlockAverage.operator` for the matrix in whatever form. Their
            `fisher_type` and `mc_samples` are those of the settings.
        mean_gradient: names of the parameters whose mean gradient over the data is needed.
    """

    curvatures: tuple[Curvature, ...] = ()
    mean_gradient: frozenset[str] = field(default_factory=frozenset)

    def __or__(self, other: Needs) -> Needs:
        known = {one.name: one for one in self.curvatures}
        for one in other.curvatures:
            if known.setdefault(one.name, one).recipe() != one.recipe():
                raise CurvlabError(
                    f"two analyses need the averages of {one.name} with other settings",
                    f"{known[one.name].recipe()} and {one.recipe()}",
                    "run them one by one",
                )
        return Needs(tuple(known.values()), self.mean_gradient | other.mean_gradient)

    @property
    def layer_gradients(self) -> bool:
        """Whether a layer that no gradient reaches cannot have them."""
        return any(not one.of_inputs for one in self.curvatures)


def together(needs: Iterable[Needs]) -> Needs:
    """What any of them needs."""
    return reduce(Needs.__or__, needs, Needs())
