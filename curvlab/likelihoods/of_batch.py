"""The likelihood of one batch: with the axis of its classes, and only of the positions that count."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from curvlab.likelihoods.class_axis import with_class_axis
from curvlab.likelihoods.likelihood import Likelihood
from curvlab.likelihoods.masked import with_mask


def of_batch(likelihood: Likelihood, z: Tensor, y: Tensor | None, inputs: Any = None) -> Likelihood:
    """`likelihood` for outputs z of this batch.

    Args:
        likelihood: as it was asked for.
        z: the model's output.
        y: targets, or None; labels of -100 do not count.
        inputs: what the model was called with by keyword; positions of `attention_mask` 0 do not count.

    Raises:
        CurvlabError: nothing tells which axis holds the classes.
    """
    return with_mask(with_class_axis(likelihood, z, y, inputs), z, y, inputs)
