"""What a person reads beside the loss: functions of outputs z and targets y, means over examples as the loss is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def accuracy(z: Tensor, y: Tensor) -> Tensor:
    """1/n Σ_n [argmax_j z_nj = y_n]: z (n, classes), y (n,) → a scalar in [0, 1]."""
    return (z.argmax(1) == y).to(z.dtype).mean()


def reconstruction_error(z: Tensor, y: Tensor) -> Tensor:
    """1/n Σ_n ‖σ(z_n) − y_n‖²: logits z and targets y of one shape (n, …) → a scalar, in squared pixel values."""
    return (z.sigmoid() - y).square().sum() / z.shape[0]


def squared_error(z: Tensor, y: Tensor) -> Tensor:
    """1/n Σ_n ‖z_n − y_n‖²: z and y of one shape (n, …) → a scalar. For standardised targets, 1 − R² of the set."""
    return (z - y).square().sum() / z.shape[0]
