"""cos(p, q) = p·q / (‖p‖‖q‖) of directions with the baseline's, per layer; in the metric of F too, and what the
quadratic model g·d − ½ dᵀFd promises along each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.comparison.blocks import Layers
from curvlab.comparison.fisher_average import products
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.operators.operator import Operator

Named = Mapping[str, Tensor]
Number = float | None


@dataclass(frozen=True)
class Agreement:
    """One optimizer's direction beside the baseline's, at one point.

    Attributes:
        cosine: layer -> p·q/(‖p‖‖q‖), None where one of them is zero or not finite.
        whole: the same over all those layers as one vector.
        fisher_cosine: layer -> pᵀFq/√(pᵀFp · qᵀFq); None where F is not known, or one of them is zero.
        fisher_whole: the same over all layers whose F is known, as one vector in the block-diagonal metric.
        decrease: (g·d)²/(2 dᵀFd), what the quadratic model promises at the best step along d, over all layers whose F
            is known; 0 where d does not descend.
    """

    cosine: Mapping[str, Number]
    whole: Number
    fisher_cosine: Mapping[str, Number]
    fisher_whole: Number
    decrease: Number


def agreements(
    directions: Mapping[str, Named],
    baseline: Named,
    gradient: Named,
    layers: Layers,
    blocks: Mapping[str, tuple[PreconditionerBlock, Operator]],
) -> dict[str, Agreement]:
    """The agreement of every direction; the device is read once.

    Args:
        directions: label -> parameter -> direction; an empty one was not finite.
        baseline: parameter -> its direction.
        gradient: g by parameter.
        layers: layer -> its parameters.
        blocks: layer -> unit and F_l.
    """
    labels = [label for label, one in directions.items() if one]
    if not baseline or not labels:
        return {label: _nothing(layers) for label in directions}
    ways = [directions[label] for label in labels]
    dots = {layer: _dots(ways, baseline, names) for layer, names in layers.items()}
    metric = {layer: products(*blocks[layer], [*ways, baseline]) for layer in layers if _covered(layer, layers, blocks)}
    slopes = [_dots([gradient], one, [n for layer in metric for n in layers[layer]])[0, 0] for one in ways]
    numbers = _read([*dots.values(), *metric.values(), torch.stack(slopes)])
    euclidean = dict(zip(dots, numbers, strict=False))
    fisher = dict(zip(metric, numbers[len(dots) :], strict=False))
    found = {label: _nothing(layers) for label in directions}
    for k, label in enumerate(labels):
        sums = torch.stack([table[k] for table in euclidean.values()]).sum(0)
        found[label] = Agreement(
            {layer: _cosine(table[k]) for layer, table in euclidean.items()},
            _cosine(sums),
            {layer: _in_metric(fisher[layer], k) if layer in fisher else None for layer in layers},
            _in_metric(torch.stack(list(fisher.values())).sum(0), k) if fisher else None,
            _decrease(float(numbers[-1][k]), [float(table[k, k]) for table in fisher.values()]),
        )
    return found


def _covered(layer: str, layers: Layers, blocks: Mapping[str, tuple[PreconditionerBlock, Operator]]) -> bool:
    return layer in blocks and set(blocks[layer][0].parameters.values()) <= set(layers[layer])


def _dots(ways: Sequence[Named], baseline: Named, names: Sequence[str]) -> Tensor:
    """p·q, p·p, q·q of each direction p: `[k, 3]`, summed in float64; a parameter without a direction is zero."""
    rows = []
    for way in ways:
        pairs = [(way[name].double(), baseline[name].double()) for name in names if name in way and name in baseline]
        sums = [torch.stack([(p * q).sum(), p.square().sum(), q.square().sum()]) for p, q in pairs]
        like = next(iter(baseline.values()))
        rows.append(torch.stack(sums).sum(0) if sums else torch.zeros(3, dtype=torch.float64, device=like.device))
    return torch.stack(rows)


def _read(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the CPU, in one transfer."""
    flat = torch.cat([t.flatten().double() for t in tensors]).cpu()
    parts = torch.split(flat, [t.numel() for t in tensors])
    return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]


def _cosine(sums: Tensor) -> Number:
    pq, pp, qq = sums.tolist()
    return _ratio(pq, (pp * qq) ** 0.5)


def _in_metric(gram: Tensor, k: int) -> Number:
    lengths = float(gram[k, k]) * float(gram[-1, -1])
    return _ratio(float(gram[k, -1]), lengths**0.5) if lengths > 0 else None


def _decrease(slope: float, curvatures: Sequence[float]) -> Number:
    curvature = sum(curvatures)
    return _ratio(max(slope, 0.0) ** 2, 2 * curvature) if curvatures and curvature > 0 else None


def _ratio(top: float, bottom: float) -> Number:
    value = top / bottom if bottom > 0 else float("nan")
    return value if abs(value) < float("inf") else None


def _nothing(layers: Layers) -> Agreement:
    return Agreement(dict.fromkeys(layers), None, dict.fromkeys(layers), None, None)
