"""Class axis: which axis of a model's output holds the classes, as outputs and targets tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from curvlab.errors import CurvlabError
from curvlab.likelihoods import Categorical, Likelihood


def with_class_axis(likelihood: Likelihood, z: Tensor, y: Tensor | None, inputs: Any = None) -> Likelihood:
    """`likelihood` with the axis of its classes: the one whose removal leaves the shape of the targets.

    Language models answer (examples, positions, classes), torch's `cross_entropy` wants (examples, classes,
    positions). A network that was called with `input_ids` and answers at each of them is a language model. Without
    targets axis 1 stands, and so does an axis that the likelihood was made with.

    Args:
        likelihood: others than `Categorical` have no axis of classes.
        z: the model's output.
        y: targets, or None.
        inputs: what the model was called with by keyword.

    Raises:
        CurvlabError: both axes fit (as many positions as classes), and nothing else tells.
    """
    if not isinstance(likelihood, Categorical) or likelihood.found or z.ndim < 3:
        return likelihood
    tokens = inputs.get("input_ids") if isinstance(inputs, Mapping) else None
    if tokens is not None and z.ndim == 3 and z.shape[:2] == tokens.shape:
        return Categorical(class_axis=-1)
    axes = fitting_axes(z, y)
    if len(axes) > 1:
        raise CurvlabError(
            f"outputs of shape {tuple(z.shape)} have as many positions as classes",
            "the classes may be on axis 1 or on the last",
            "give likelihood=Categorical(class_axis=1) or Categorical(class_axis=-1)",
        )
    return Categorical(class_axis=axes[0]) if axes else likelihood


def fitting_axes(z: Tensor, y: Tensor | None) -> list[int]:
    """The axes, 1 or -1, that may hold the classes of z for whole-number targets y; none without targets."""
    if y is None or z.ndim < 2:
        return []
    first, last = y.shape[1:] == z.shape[2:], y.shape[1:] == z.shape[1:-1]
    return [axis for axis, fits in ((1, first), (-1, last and z.ndim > 2)) if fits]
