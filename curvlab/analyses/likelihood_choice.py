"""Which likelihood an analysis uses: what the user says, what the file recorded, or what targets and outputs look
like."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from curvlab.errors import DataError
from curvlab.likelihoods import Categorical, Likelihood, likelihood
from curvlab.statistics.class_axis import with_class_axis


def choose_likelihood(
    loss: str, recorded: str | None, z: Tensor, y: Tensor | None, inputs: Any = None
) -> tuple[Likelihood, str | None]:
    """The likelihood, and a sentence for the user where it was guessed.

    Args:
        loss: "cross-entropy", "bce", "mse" or "auto".
        recorded: what the model file says, or None.
        z: the model's output for a few examples.
        y: targets, or None.
        inputs: what those examples were: of tokens, the output's axis of positions is known without targets.

    Raises:
        DataError: with "auto", when nothing tells.
    """
    name, note = loss, None
    if loss == "auto":
        name, note = (recorded, None) if recorded else _guess(z, y)
    chosen = with_class_axis(likelihood(name), z, y, inputs)
    if isinstance(chosen, Categorical) and chosen.class_axis == 1 and z.ndim > 2 and y is None:
        shape = ", ".join(map(str, z.shape[1:]))
        note = f"classes: axis 1 of the output (examples, {shape}) is assumed without targets"
    return chosen, note


def _guess(z: Tensor, y: Tensor | None) -> tuple[str, str]:
    if y is not None and not y.is_floating_point():
        if z.ndim >= 2 and z.shape[1] == 1 and y.numel() and int(y.max()) <= 1:
            return "bce", "loss: bce, since the targets are 0 and 1 and the model has one output (--loss sets it)"
        return "cross-entropy", "loss: cross-entropy, since the targets are whole numbers (--loss sets it)"
    if y is not None:
        return "mse", "loss: mse (½‖z − y‖²), since the targets are real numbers (--loss sets it)"
    if z.ndim == 2 and z.shape[1] > 1:
        return (
            "cross-entropy",
            f"loss: cross-entropy is assumed for {z.shape[1]} outputs without targets (--loss sets it)",
        )
    raise DataError(
        f"the model's output has shape {tuple(z.shape)} and there are no targets",
        "the loss cannot be guessed",
        "give --loss",
    )
