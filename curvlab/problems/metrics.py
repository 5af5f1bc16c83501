"""What a person reads beside the loss: functions of outputs z and targets y, means over examples as the loss is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def accuracy(z: Tensor, y: Tensor) -> Tensor:
    """1/n Σ_n [argmax_j z_nj = y_n]: a scalar in [0, 1], a mean over positions as well.

    z is (n, classes, …) or (n, …, classes) and y is (n, …); positions labelled -100 do not count.
    """
    from curvlab.likelihoods.class_axis import fitting_axes
    from curvlab.likelihoods.masked import IGNORED

    axes = fitting_axes(z, y)
    right, counted = z.argmax(axes[-1] if axes else 1) == y, y != IGNORED
    return (right & counted).sum().to(z.dtype) / counted.sum().clamp(min=1)


def reconstruction_error(z: Tensor, y: Tensor) -> Tensor:
    """1/n Σ_n ‖σ(z_n) − y_n‖²: logits z and targets y of one shape (n, …) → a scalar, in squared pixel values."""
    return (z.sigmoid() - y).square().sum() / z.shape[0]


def squared_error(z: Tensor, y: Tensor) -> Tensor:
    """1/n Σ_n ‖z_n − y_n‖²: z and y of one shape (n, …) → a scalar. For standardised targets, 1 − R² of the set."""
    return (z - y).square().sum() / z.shape[0]


def mean_overlap(z: Tensor, y: Tensor) -> Tensor:
    """1/n Σ_n mean_c |ŷ_n=c ∩ y_n=c| / |ŷ_n=c ∪ y_n=c|, ŷ = argmax_j z_j, over the classes c in ŷ_n or y_n.

    The intersection over union of each image for itself, so that it is a mean over examples; the one of Everingham et
    al. 2010 sums pixels over all images first. z (n, classes, h, w), y (n, h, w) → a scalar in [0, 1].
    """
    import torch

    classes = torch.arange(z.shape[1], device=z.device)[:, None, None, None]
    answered, wanted = z.argmax(1) == classes, y == classes
    common = (answered & wanted).sum((2, 3)).to(z.dtype)
    either = (answered | wanted).sum((2, 3)).to(z.dtype)
    return ((common / either.clamp(min=1)).sum(0) / (either > 0).sum(0)).mean()
