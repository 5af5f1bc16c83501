"""Losses that stand in graphs exported together with them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.formats.onnx.operators.table import Result, operator


@operator("NegativeLogLikelihoodLoss")
def negative_log_likelihood(
    x: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Tensor:
    """−weight[target] x[target], of the classes on axis 1."""
    ignored = torch.zeros_like(target, dtype=torch.bool) if ignore_index is None else target == ignore_index
    safe = torch.where(ignored, torch.zeros_like(target), target).long()
    each = F.nll_loss(x, safe, weight, reduction="none").masked_fill(ignored, 0)
    if reduction == "none":
        return each
    if reduction == "sum":
        return each.sum()
    counted = torch.ones_like(each) if weight is None else weight[safe]
    return each.sum() / counted.masked_fill(ignored, 0).sum()


@operator("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(
    scores: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
    outputs: int = 1,
) -> Result:
    """The negative log-likelihood of softmax(scores), and its logarithms."""
    logarithms = torch.log_softmax(scores, 1)
    loss = negative_log_likelihood(logarithms, labels, weight, ignore_index=ignore_index, reduction=reduction)
    assert isinstance(loss, Tensor)
    return (loss, logarithms)[:outputs]
