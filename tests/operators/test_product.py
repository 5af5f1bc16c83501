"""Products against the same operators written out by numpy."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curvlab.operators.eigenbasis import eigenbasis
from curvlab.operators.matrix import matrix
from curvlab.operators.operator import Dense, Diagonal, Grouped, GroupedKronecker, Kronecker, LowRank, Operator
from curvlab.operators.product import product


def psd(*shape: int) -> torch.Tensor:
    x = torch.randn(*shape, shape[-1] + 2, dtype=torch.float64)
    return x @ x.mT


def cases() -> dict[str, Operator]:
    torch.manual_seed(1)
    g, a, values = psd(3), psd(4), torch.rand(4).double()
    return {
        "dense": Dense(a),
        "diagonal": Diagonal(values),
        "low rank": LowRank(torch.randn(2, 5).double(), 0.25),
        "grouped": Grouped(psd(3, 2)),
        "matrix block": Kronecker((Dense(g), Dense(a))),
        "embedding block": Kronecker((Dense(g), Diagonal(values))),
        "bias": Kronecker((Dense(a),)),
        "convolution": Kronecker((Dense(psd(3)), Dense(psd(2)), Dense(psd(9)))),
        "five modes": Kronecker(tuple(Dense(psd(d)) for d in (2, 3, 1, 2, 2))),
        "nested": Kronecker((Kronecker((Dense(g), LowRank(torch.randn(2, 3).double(), 1.0))), Grouped(psd(2, 2)))),
        "grouped matrix block": GroupedKronecker((Grouped(psd(2, 3)), Grouped(psd(2, 4)))),
        "one group": GroupedKronecker((Grouped(psd(1, 3)), Grouped(psd(1, 4)))),
        "grouped convolution": GroupedKronecker((Grouped(psd(3, 2)), Grouped(psd(3, 4)), Grouped(psd(3, 2)))),
        "kronecker of groups": Kronecker((GroupedKronecker((Grouped(psd(2, 2)), Grouped(psd(2, 3)))), Dense(g))),
    }


@pytest.mark.parametrize("name", cases())
@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 3)])
def test_the_dense_product(name: str, batch: tuple[int, ...]) -> None:
    operator = cases()[name]
    x = torch.randn(*batch, operator.size).double()
    found = product(operator, x)
    assert found.shape == x.shape
    np.testing.assert_allclose(found, x.numpy() @ matrix(operator).numpy(), rtol=1e-11, atol=1e-11)


def test_a_matrix_block_is_g_m_a() -> None:
    g, a, m = psd(3), psd(4), torch.randn(3, 4).double()
    assert torch.allclose(product(Kronecker((Dense(g), Dense(a))), m), g @ m @ a)
    stacked = GroupedKronecker((Grouped(torch.stack([g, 2 * g])), Grouped(torch.stack([a, 3 * a]))))
    both = product(stacked, torch.stack([m, m]))
    assert torch.allclose(both, torch.stack([g @ m @ a, 6 * g @ m @ a]))


def test_a_tensor_block_multiplies_every_mode_and_modes_may_be_split_into_axes() -> None:
    u, v, w = psd(3), psd(2), psd(6)
    x = torch.randn(3, 2, 2, 3).double()
    operator = Kronecker((Dense(u), Dense(v), Dense(w)))
    expected = torch.einsum("ai,bj,ck,ijk->abc", u, v, w, x.flatten(2)).view_as(x)
    assert torch.allclose(product(operator, x), expected)
    assert torch.allclose(product(operator, x.transpose(2, 3).contiguous().transpose(2, 3)), expected)


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), groups=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_kronecker_products_of_any_number_of_modes(sizes: list[int], groups: int, seed: int) -> None:
    torch.manual_seed(seed)
    stacks = [psd(groups, d) for d in sizes]
    x = torch.randn(groups, *sizes).double()
    blocks = [reduce(np.kron, [stack[i].numpy() for stack in stacks]) for i in range(groups)]
    expected = np.stack([block @ x[i].flatten().numpy() for i, block in enumerate(blocks)]).reshape(x.shape)
    grouped = GroupedKronecker(tuple(Grouped(stack) for stack in stacks))
    np.testing.assert_allclose(product(grouped, x), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(product(eigenbasis(grouped), x), expected, rtol=1e-8, atol=1e-9)
    one = Kronecker(tuple(Dense(stack[0]) for stack in stacks))
    np.testing.assert_allclose(product(one, x[0]), expected[0], rtol=1e-10, atol=1e-10)


def test_the_argument_is_left_alone_and_its_dtype_kept() -> None:
    for operator in cases().values():
        x = torch.randn(operator.size).double()
        before = x.clone()
        product(operator, x)
        assert torch.equal(x, before)
    assert product(Kronecker((Dense(torch.eye(2)), Diagonal(torch.ones(3)))), torch.ones(2, 3)).dtype == torch.float32


@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 2), (24,), (0,), ()])
def test_shapes_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="size 12"):
        product(Kronecker((Dense(psd(3)), Dense(psd(4)))), torch.zeros(shape))


def test_unknown_types_are_named() -> None:
    class Unknown(Operator):
        size = 1

    with pytest.raises(TypeError, match="Unknown"):
        product(Unknown(), torch.zeros(1))
