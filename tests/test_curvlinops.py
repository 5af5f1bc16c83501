"""K-FAC factors and GGN products against curvlinops, an independent implementation, in float64."""

from __future__ import annotations

import pytest
import torch
from curvlinops import GGNLinearOperator, KFACLinearOperator
from torch import Tensor, nn

from curvlab import curvature

pytestmark = pytest.mark.usefixtures("float64")


def network() -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 3, 2, bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(12, 3),
    )
    x = torch.randn(5, 2, 5, 6, generator=generator)
    return model, x, torch.randint(0, 3, (5,), generator=generator)


@pytest.mark.parametrize("approx", ["expand", "reduce"])
@pytest.mark.parametrize("fisher_type", ["type-2", "empirical"])
def test_kfac_block_equals_curvlinops(approx: str, fisher_type: str) -> None:
    """Blocks A ⊗ G, so that it does not matter which factor carries the number of positions."""
    model, x, y = network()
    mine = curvature.kfac_factors(model, x, y, likelihood="categorical", fisher_type=fisher_type, kfac_approx=approx)
    theirs = KFACLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        [(x, y)],
        fisher_type=fisher_type,
        kfac_approx=approx,
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    dense = theirs @ torch.eye(theirs.shape[0])
    # curvlinops orders a layer's parameters as the model does: weight, then bias, each flattened.
    start = 0
    for name, factors in mine.items():
        layer = model.get_submodule(name)
        block = torch.kron(factors.gradient_factor, factors.input_factor)
        rows, columns = factors.gradient_factor.shape[0], factors.input_factor.shape[0]
        places = torch.arange(rows * columns).reshape(rows, columns)
        if layer.bias is not None:
            places = torch.cat([places[:, :-1].flatten(), places[:, -1]])
        order = places.flatten()
        stop = start + len(order)
        theirs_block = dense[start:stop, start:stop]
        assert torch.allclose(
            block[order][:, order], theirs_block, rtol=1e-9, atol=1e-12 * theirs_block.abs().max().item()
        )
        start = stop
    assert start == dense.shape[0]


def test_ggn_product_equals_curvlinops() -> None:
    model, x, y = network()
    theirs = GGNLinearOperator(
        model, nn.CrossEntropyLoss(), list(model.parameters()), [(x, y)], check_deterministic=False
    )
    vector = {n: torch.randn_like(p) for n, p in model.named_parameters()}
    product = curvature.ggn_product(model, x, y, vector, likelihood="categorical")
    wanted = theirs @ torch.cat([v.flatten() for v in vector.values()])
    assert torch.allclose(torch.cat([p.flatten() for p in product.values()]), wanted, rtol=1e-9, atol=1e-12)
