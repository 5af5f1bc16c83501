"""Names of the tensors of a factor file, and the averages of recipes that they hold.

A matrix is stored in one of three forms: itself `[g, d, d]` under its name, its diagonal `[g, d]` under `NAME_diagonal`
where the rest is zero, or rows `[g, r, d]` under `NAME_rows`, fewer than d, whose products add up to it; those of the
second moment are the inputs, whose products have it as their mean. Rows of a sketch have the bound of what it misses,
`NAME_lost`, and the exact diagonal `NAME_energy` beside them. `NAME_columns` are the places of the only columns that
are not zero.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

import torch
from torch import Tensor

from curvlab.curvatures.curvature import State
from curvlab.curvatures.gradient_moments import GradientMoments
from curvlab.curvatures.input_moments import InputMoments
from curvlab.curvatures.kept_rows import rows_of
from curvlab.curvatures.reduced_factors import ReducedFactors
from curvlab.linalg.float64 import double

MEAN, SECOND_MOMENT = "mean", "second_moment"
INPUT_FACTOR, GRADIENT_FACTOR = "input_factor", "gradient_factor"
FISHER_DIAGONAL = "fisher_diagonal"

NAMES: Mapping[str, Mapping[str, str]] = {
    InputMoments.name: {"mean": MEAN, "second": SECOND_MOMENT},
    GradientMoments.name: {"gradient": GRADIENT_FACTOR},
    ReducedFactors.name: {"input": INPUT_FACTOR, "gradient": GRADIENT_FACTOR},
}
"""Recipe -> what its averages of a layer are called in its state -> what they are called in a file."""

REQUIRED = {
    InputMoments.name: (MEAN, SECOND_MOMENT),
    GradientMoments.name: (GRADIENT_FACTOR,),
    ReducedFactors.name: (INPUT_FACTOR,),
}
"""Without these there are no averages of a recipe; where no gradient came, K-FAC's have the input factor alone."""

ROWS, DIAGONAL, LOST, ENERGY, COLUMNS = "_rows", "_diagonal", "_lost", "_energy", "_columns"


def stored(recipe: str, state: State) -> dict[str, Tensor]:
    """The averages of one layer by their names in a file."""
    found = {}
    for key, name in NAMES[recipe].items():
        if key in state:
            found[name + (DIAGONAL if state[key].ndim == 2 and name != MEAN else "")] = state[key]
        if rows_of(key) in state:
            scale = 1.0 if name == SECOND_MOMENT else state[f"{key} scale"].item()
            found[name + ROWS] = double(state[rows_of(key)]) * scale**0.5
            if f"{key} lost" in state:
                found[name + LOST] = double(state[f"{key} lost"]) * scale
                found[name + ENERGY] = double(state[f"{key} energy"]) * scale
        if f"{key} columns" in state:
            found[name + COLUMNS] = state[f"{key} columns"]
    return found


def holds(recipe: str, tensors: Container[str]) -> bool:
    """Whether tensors of these names are averages of the recipe."""
    return all(any(name + form in tensors for form in ("", DIAGONAL, ROWS)) for name in REQUIRED[recipe])


def state(recipe: str, tensors: Mapping[str, Tensor], rows: int, widths: Mapping[str, int]) -> State:
    """The inverse of `stored`, where the file `holds` them; of so many rows of features, and with these sizes of the
    matrices by their names."""
    found: State = {}
    for key, name in NAMES[recipe].items():
        places = {"": key, DIAGONAL: key, ROWS: rows_of(key), LOST: f"{key} lost", ENERGY: f"{key} energy"}
        places[COLUMNS] = f"{key} columns"
        for form, place in places.items():
            if name + form in tensors:
                found[place] = tensors[name + form]
        if rows_of(key) in found:
            scale = 1 / rows if name == SECOND_MOMENT else 1.0
            found[f"{key} scale"] = torch.tensor(scale, dtype=torch.float64)
        if f"{key} columns" in found:
            found[f"{key} width"] = torch.tensor(widths[name])
    return found
