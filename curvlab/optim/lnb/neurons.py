"""Linear neuron boosting: which parts of a model are neurons, and what a batch shows of them, E[āāᵀ] (LNB, Alg. 2)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from curvlab.capture.sample import Sample
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock, layer_matrices
from curvlab.layers.convolution import ConvolutionLayer
from curvlab.layers.embedding import EmbeddingLayer
from curvlab.layers.layer import Layer, Moments
from curvlab.layers.linear import LinearLayer
from curvlab.linalg.gram import LEAF, mirrored
from curvlab.optim.lnb.feature_sums import feature_sums
from curvlab.optim.lnb.neuron_metric import NeuronMetric
from curvlab.statistics.append_one import append_one

# Entries of patches that are formed faster than done without.
FEW = 2**14


def neurons(found: Survey | None, trainable: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
    """The blocks with a metric: dense maps whose parameters are all trainable and no other block's.

    The rest has the identity metric: position embeddings, class tokens (LNB, section 3.3), norm scales, what is tied.
    """
    blocks = [one for one in layer_matrices(found) if not one.uses[0].block.tied]
    return [one for one in blocks if all(name in trainable for name in one.parameters.values())]


@dataclass(frozen=True, eq=False)
class Seen:
    """The features of a neuron in the batches of a step.

    Attributes:
        sums: Σ a, Σ a⊙a and the number of rows.
        metric: M; None where the features are one-hot: M is diag E[a⊙a] then, and its average over steps is known.
    """

    sums: Moments
    metric: NeuronMetric | None

    def joined(self, other: Seen) -> Seen:
        """Both together."""
        a, b = self.sums, other.sums
        sums = Moments(a.total + b.total, a.second + b.second, a.rows + b.rows)
        metric = self.metric.joined(other.metric) if self.metric is not None and other.metric is not None else None
        return Seen(sums, metric)

    def check(self) -> None:
        """Raise if inputs that are still needed were overwritten since."""
        for call in () if self.metric is None else self.metric.inputs:
            call.check()


def same_features(sample: Sample) -> Hashable:
    """Equal for samples whose features are the same numbers: one input tensor seen by maps that read it alike.

    The query, key and value of an attention share one M. The tensors are alive, so that equal addresses are one tensor.
    """
    layer = sample.layer
    if not isinstance(layer, LinearLayer | ConvolutionLayer) or layer.groups > 1:
        return id(sample)
    how = layer.geometry if isinstance(layer, ConvolutionLayer) else None
    where = tuple(
        (c.x.data_ptr(), c.x.shape, c.x.stride(), c.x.dtype, c.version) for c in sample.calls if c.x is not None
    )
    return how, layer.in_features, layer.biased, where


def seen(sample: Sample, products: int | None) -> Seen:
    """The metric by the cheaper route, and its moments.

    Args:
        sample: features of one batch.
        products: how many times a matrix W̄ will be multiplied with the metric; None if it has to be formed.
    """
    if sample.mask is not None:
        sample = Sample(sample.unpadded_calls(), sample.examples, sample.dtype)
    layer, rows = sample.layer, sum(call.rows for call in sample.calls)
    if isinstance(layer, EmbeddingLayer):
        return Seen(_sums(sample), None)
    formed = products is None or moments_are_cheaper(layer, rows, products)
    return by_moments(sample) if formed else by_inputs(sample)


def moments_are_cheaper(layer: Layer, rows: int, products: int) -> bool:
    """Whether to form M from n rows and multiply k times with it takes less than to go k times through the layer and
    k − 1 times back.

    In multiplications of a group, n·j²/4 + (k·o + 150)·j² < (2k − 1)·n·o·j + 10⁷: forming M costs half of its n·j²/2,
    as it is one large product, and each entry about 150 to be copied, mirrored and summed; the way through a layer has
    overhead of its own. In nanoseconds for a convolution, 3·10⁵ + n·j²/100 < (2k − 1)·(2.5·10⁵ + n·o·j/40), where only
    one in `spacing` of a transposed one's entries is not zero. Fitted to 18 shapes each in float32 on one core.
    """
    o, j, through = layer.out_features, layer.in_features + layer.biased, 2 * products - 1
    if isinstance(layer, ConvolutionLayer):
        entries = layer.groups * rows * j
        forming = 3e5 + entries * j / (100 * prod(layer.geometry.spacing))
        return forming < through * (2.5e5 + entries * o / 40)
    return rows * j**2 / 4 + (products * o + 150) * j**2 < through * rows * o * j + 1e7 / layer.groups


def by_inputs(sample: Sample) -> Seen:
    """The inputs themselves are kept; nothing is formed."""
    inputs = tuple(call for call in sample.calls if call.x is not None)
    sums = _sums(sample)
    return Seen(sums, NeuronMetric(sample.layer, sums.rows, inputs))


def by_moments(sample: Sample) -> Seen:
    """Σ āāᵀ by the layer's cheapest method; the inputs are released."""
    layer = sample.layer
    few = isinstance(layer, LinearLayer) or sum(call.rows for call in sample.calls) * layer.in_features <= FEW
    if layer.in_features < LEAF and few:
        return _by_rows(sample)
    moments = sample.feature_moments()
    second = torch.diag_embed(moments.second) if moments.diagonal else mirrored(moments.second.contiguous())
    square = second.diagonal(dim1=1, dim2=2)
    if layer.biased:
        second = append_one(second, moments.total)
        second[:, -1, -1] = moments.rows
    return Seen(Moments(moments.total, square, moments.rows), NeuronMetric(layer, moments.rows, second=second))


def _by_rows(sample: Sample) -> Seen:
    """Narrow rows with their 1 in a single product, which holds every sum."""
    layer = sample.layer
    calls = [call.layer.features(call.x).flatten(1, 2) for call in sample.calls if call.x is not None]
    rows = (calls[0] if len(calls) == 1 else torch.cat(calls, dim=1)).to(sample.dtype)
    if layer.biased:
        rows = pad(rows, (0, 1), value=1.0)
    second = torch.bmm(rows.mT, rows)
    total = second[:, -1, :-1] if layer.biased else rows.sum(1)
    square = second.diagonal(dim1=1, dim2=2)[:, : layer.in_features]
    return Seen(Moments(total, square, rows.shape[1]), NeuronMetric(layer, rows.shape[1], second=second))


def _sums(sample: Sample) -> Moments:
    sums = [feature_sums(call.layer, call.x, sample.dtype) for call in sample.calls if call.x is not None]
    if len(sums) == 1:
        return sums[0]
    total, square = torch.stack([s.total for s in sums]).sum(0), torch.stack([s.second for s in sums]).sum(0)
    return Moments(total, square, sum(s.rows for s in sums))
