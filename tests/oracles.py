"""Dense oracles in float64, by plain autograd, one example and one output at a time: they know nothing of hooks,
layers or factors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def loss_of(z: Tensor, y: Tensor, likelihood: str) -> Tensor:
    """ℓ of one example, summed over its positions."""
    if likelihood == "categorical":
        return nn.functional.cross_entropy(z[None], y[None], reduction="sum")
    if likelihood == "bernoulli":
        return nn.functional.binary_cross_entropy_with_logits(z, y, reduction="sum")
    return 0.5 * (z - y).square().sum()


def jacobians(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs (n, *z) and {parameter: (n, outputs, *shape)}."""
    parameters = dict(model.named_parameters())
    outputs, rows = [], []
    for n in range(len(x)):
        z = model(x[n : n + 1])[0]
        outputs.append(z.detach())
        for value in z.reshape(-1):
            rows.append(torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True))
    stacked = {}
    for i, (name, p) in enumerate(parameters.items()):
        parts = [torch.zeros_like(p) if row[i] is None else row[i] for row in rows]
        stacked[name] = torch.stack(parts).reshape(len(x), -1, *p.shape)
    return torch.stack(outputs), stacked


def fisher_columns(
    model: nn.Module, x: Tensor, y: Tensor, likelihood: str, fisher_type: str
) -> Iterator[dict[str, Tensor]]:
    """Per-example parameter gradients {name: (n, *shape)}, one dictionary per column of the Fisher's square root.

    "empirical": the one column of the data's targets. "type-2": the Jacobian of the output times a square root, by
    eigendecomposition, of the loss's Hessian by autograd.
    """
    z, jacobian = jacobians(model, x)
    roots = []
    for n in range(len(x)):
        if fisher_type == "empirical":
            leaf = z[n].clone().requires_grad_()
            roots.append(torch.autograd.grad(loss_of(leaf, y[n], likelihood), leaf)[0].reshape(1, -1))
            continue
        hessian = torch.autograd.functional.hessian(lambda v, n=n: loss_of(v, y[n], likelihood), z[n])
        size = z[n].numel()
        values, vectors = torch.linalg.eigh(hessian.reshape(size, size))
        roots.append((vectors * values.clamp(min=0).sqrt()).mT)
    stacked = torch.stack(roots)
    for k in range(stacked.shape[1]):
        yield {name: torch.einsum("nc,nc...->n...", stacked[:, k], j) for name, j in jacobian.items()}


def dense_block(columns: list[dict[str, Tensor]], flat: list[str]) -> Tensor:
    """1/N Σ over examples and columns of vec vecᵀ, parameters flattened and concatenated in the order `flat`."""
    products = []
    for column in columns:
        rows = torch.cat([column[name].reshape(len(column[name]), -1) for name in flat], dim=1)
        products.append(rows.mT @ rows / len(rows))
    return torch.stack(products).sum(0)


def contraction(columns: list[dict[str, Tensor]], name: str, shape: tuple[int, ...], mode: int) -> Tensor:
    """1/N Σ_n mat_i(D_n) mat_i(D_n)ᵀ."""
    products = []
    for column in columns:
        d = column[name].reshape(-1, *shape, 1).movedim(mode + 1, 1).flatten(2)
        products.append(torch.einsum("nar,nbr->ab", d, d) / len(d))
    return torch.stack(products).sum(0)
