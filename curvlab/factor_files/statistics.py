"""Names of the tensors of a factor file, and the averages of recipes that they hold.

A matrix is stored in one of three forms: itself `[g, d, d]` under its name, its diagonal `[g, d]` under `NAME_diagonal`
where the rest is zero, or rows `[g, r, d]` under `NAME_rows`, fewer than d, whose products add up to it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from torch import Tensor

from curvlab.curvatures.curvature import State
from curvlab.curvatures.gradient_moments import GradientMoments
from curvlab.curvatures.input_moments import InputMoments
from curvlab.curvatures.kept_rows import key_of, rows_of
from curvlab.curvatures.kfac import KfacFactors

MEAN, SECOND_MOMENT = "mean", "second_moment"
INPUT_FACTOR, GRADIENT_FACTOR = "input_factor", "gradient_factor"
FISHER_DIAGONAL = "fisher_diagonal"

NAMES: Mapping[str, Mapping[str, str]] = {
    InputMoments.name: {"mean": MEAN, "second": SECOND_MOMENT},
    GradientMoments.name: {"gradient": GRADIENT_FACTOR},
    KfacFactors.name: {"input": INPUT_FACTOR, "gradient": GRADIENT_FACTOR},
}
"""Recipe -> what its averages of a layer are called in its state -> what they are called in a file."""

REQUIRED = {
    InputMoments.name: (MEAN, SECOND_MOMENT),
    GradientMoments.name: (GRADIENT_FACTOR,),
    KfacFactors.name: (INPUT_FACTOR,),
}
"""Without these there are no averages of a recipe; where no gradient came, K-FAC's have the input factor alone."""

ROWS, DIAGONAL = "_rows", "_diagonal"


def stored(recipe: str, state: State) -> dict[str, Tensor]:
    """The averages of one layer by their names in a file."""
    found = {}
    for key, tensor in state.items():
        name = NAMES[recipe].get(key_of(key))
        if name is None:
            continue
        form = ROWS if key != key_of(key) else DIAGONAL if tensor.ndim == 2 and name != MEAN else ""
        found[name + form] = tensor
    return found


def holds(recipe: str, tensors: Container[str]) -> bool:
    """Whether tensors of these names are averages of the recipe."""
    return all(any(name + form in tensors for form in ("", DIAGONAL, ROWS)) for name in REQUIRED[recipe])


def state(recipe: str, tensors: Mapping[str, Tensor]) -> State:
    """The inverse of `stored`, where the file `holds` them."""
    found = {}
    for key, name in NAMES[recipe].items():
        for form, place in (("", key), (DIAGONAL, key), (ROWS, rows_of(key))):
            if name + form in tensors:
                found[place] = tensors[name + form]
    return found
