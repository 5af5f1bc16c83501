"""Class axis: which axis of a model's output holds the classes, when the targets tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from curvlab.likelihoods import Categorical, Likelihood


def with_class_axis(likelihood: Likelihood, z: Tensor, y: Tensor | None, inputs: Any = None) -> Likelihood:
    """`likelihood`, its classes on the last axis of z where targets y fit (examples, positions) and not torch's order.

    Language models answer (examples, positions, classes), torch's `cross_entropy` wants (examples, classes,
    positions). Without targets, or where both fit, the latter stands, unless the network was called with `input_ids`
    and answers at each of them.
    """
    tokens = inputs.get("input_ids") if isinstance(inputs, Mapping) else None
    if isinstance(likelihood, Categorical) and tokens is not None and z.ndim == 3 and z.shape[:2] == tokens.shape:
        return Categorical(class_axis=-1)
    if (
        isinstance(likelihood, Categorical)
        and likelihood.class_axis == 1
        and z.ndim > 2
        and y is not None
        and y.shape[1:] != z.shape[2:]
        and y.shape[1:] == z.shape[1:-1]
    ):
        return Categorical(class_axis=-1)
    return likelihood
