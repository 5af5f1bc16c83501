"""Dense oracles in float64, by autodiff alone: they know nothing of hooks, layers or factors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap


def fisher_columns(model: nn.Module, x: Tensor, y: Tensor | None, likelihood: str, fisher_type: str) -> Iterator[dict[str, Tensor]]:
    """Per-example parameter gradients {name: (n, *shape)}, one dictionary per column of the Fisher's square root.

    "type-2": the rows of the Jacobian of the output times a square root (by eigendecomposition) of the autodiff Hessian of the loss.
    """
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def output(values: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(model, {**values, **buffers}, (one[None],))[0].reshape(-1)

    def loss_at(z: Tensor, target: Tensor) -> Tensor:
        if likelihood == "categorical":
            return nn.functional.cross_entropy(z[None], target[None].reshape(1))
        if likelihood == "bernoulli":
            return nn.functional.binary_cross_entropy_with_logits(z, target.reshape(-1), reduction="sum")
        return 0.5 * (z - target.reshape(-1)).square().sum()

    jacobian = vmap(torch.func.jacrev(output), (None, 0))(parameters, x)
    with torch.no_grad():
        z = vmap(output, (None, 0))(parameters, x)
    if fisher_type == "empirical":
        assert y is not None
        roots = vmap(torch.func.grad(loss_at))(z, y)[:, None]
    else:
        target = torch.zeros(len(z), dtype=torch.long) if likelihood == "categorical" else torch.zeros_like(z)
        values, vectors = torch.linalg.eigh(vmap(torch.func.hessian(loss_at))(z, target))
        roots = (vectors * values.clamp(min=0).sqrt()[:, None]).mT
    for k in range(roots.shape[1]):
        yield {n: torch.einsum("nc,nc...->n...", roots[:, k], j) for n, j in jacobian.items()}


def dense_block(columns: list[dict[str, Tensor]], flat: list[str]) -> Tensor:
    """1/N Σ over examples and columns of vec vecᵀ, parameters flattened and concatenated in the order `flat`."""
    total: Tensor | None = None
    for column in columns:
        rows = torch.cat([column[name].flatten(1) for name in flat], dim=1)
        product = rows.mT @ rows / len(rows)
        total = product if total is None else total + product
    assert total is not None
    return total


def contraction(columns: list[dict[str, Tensor]], name: str, shape: tuple[int, ...], mode: int) -> Tensor:
    """1/N Σ_n mat_i(D_n) mat_i(D_n)ᵀ."""
    total = torch.zeros(shape[mode], shape[mode], dtype=torch.float64)
    for column in columns:
        d = column[name].reshape(-1, *shape).movedim(mode + 1, 1).flatten(2)
        total += torch.einsum("nar,nbr->ab", d, d) / len(d)
    return total
