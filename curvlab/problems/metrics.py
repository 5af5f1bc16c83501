"""What a person reads beside the loss: functions of outputs z and targets y, means over examples as the loss is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    Metric = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PositionMean:
    """finish(Σ terms / positions that count): a metric of positions, over whatever examples z and y are of.

    A position counts unless its label is -100. An evaluation in batches adds up terms and counts, and divides once.

    Attributes:
        terms: (z, y) -> the sum over the positions that count.
        finish: of the mean; itself for None.
    """

    terms: Metric
    finish: Callable[[Tensor], Tensor] | None = None

    def __call__(self, z: Tensor, y: Tensor) -> Tensor:
        """The metric of these examples."""
        return self.of(self.terms(z, y), self.count(y))

    def count(self, y: Tensor) -> Tensor:
        """How many positions count."""
        from curvlab.likelihoods.masked import IGNORED

        return (y != IGNORED).sum()

    def of(self, total: Tensor, count: Tensor) -> Tensor:
        """The metric from both sums."""
        mean = total / count.clamp(min=1)
        return mean if self.finish is None else self.finish(mean)


def right_answers(z: Tensor, y: Tensor) -> Tensor:
    """Σ [argmax_j z_nj = y_n] over the positions that count: a scalar.

    z is (n, classes, …) or (n, …, classes) and y is (n, …); positions labelled -100 do not count.
    """
    from curvlab.likelihoods.class_axis import fitting_axes
    from curvlab.likelihoods.masked import IGNORED

    axes = fitting_axes(z, y)
    right = z.argmax(axes[-1] if axes else 1) == y
    return (right & (y != IGNORED)).sum().to(z.dtype)


def nats(z: Tensor, y: Tensor) -> Tensor:
    """−Σ log p(y | z) over the positions that count, p = softmax(z): a scalar."""
    from curvlab.likelihoods.categorical import Categorical
    from curvlab.likelihoods.of_batch import of_batch

    return of_batch(Categorical(), z, y).loss(z, y) * z.shape[0]


def exponential(mean: Tensor) -> Tensor:
    """exp(mean)."""
    return mean.exp()


accuracy = PositionMean(right_answers)
"""The share of positions that are told right: a scalar in [0, 1]."""
perplexity = PositionMean(nats, exponential)
"""exp of the mean of −log p(y) over positions: as many equally likely answers would be as hard to tell."""


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
