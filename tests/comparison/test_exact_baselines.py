"""The exact baselines against dense matrices by autograd and numpy's solve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from curvlab.comparison.compare import compare
from curvlab.comparison.exact_baseline import ExactBaseline, Matrix
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood, likelihood
from curvlab.linalg.minres import minres
from tests import oracles


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 12), seed=st.integers(0, 1000), shift=st.sampled_from([0.0, 1.0, -1.0]))
def test_minres_solves_symmetric_systems_of_any_sign(size: int, seed: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(size, size, generator=generator, dtype=torch.float64)
    a = a + a.mT + shift * torch.eye(size, dtype=torch.float64)
    b = torch.randn(size, generator=generator, dtype=torch.float64)
    found = minres(lambda v: a @ v, b, max_iterations=30 * size, tolerance=1e-12)
    want = np.linalg.solve(a.numpy(), b.numpy())
    condition = float(np.linalg.cond(a.numpy()))
    assert float(np.linalg.norm(found.solution.numpy() - want)) <= 1e-9 * condition * float(np.linalg.norm(want))


def test_minres_tells_how_far_it_came() -> None:
    a = torch.diag(torch.logspace(0, 6, 50, dtype=torch.float64))
    b = torch.ones(50, dtype=torch.float64)
    short = minres(lambda v: a @ v, b, max_iterations=3, tolerance=1e-10)
    assert (short.iterations, short.converged) == (3, False)
    true = float((b - a @ short.solution).norm() / b.norm())
    assert short.residual == pytest.approx(true, rel=1e-12)
    assert minres(lambda v: a @ v, torch.zeros(50).double(), 3).solution.abs().max() == 0
    assert not minres(lambda v: a @ v, torch.full((50,), float("nan")).double(), 3).converged


def network() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    return model, torch.randn(10, 3).double(), torch.randint(0, 3, (10,))


@pytest.mark.parametrize("matrix", ["ggn", "hessian"])
def test_directions_solve_the_dense_system(matrix: Matrix) -> None:
    model, x, y = network()
    names = [name for name, _ in model.named_parameters()]
    gradient = {name: torch.randn_like(p) for name, p in model.named_parameters()}

    def part(rows: slice) -> tuple[Tensor, Tensor, Likelihood]:
        z = model(x[rows])
        return nn.functional.cross_entropy(z, y[rows]), z, likelihood("categorical")

    baseline = ExactBaseline(model, matrix, damping=0.05)
    found = baseline.solve(gradient, [lambda: part(slice(0, 7)), lambda: part(slice(7, 10))])
    if matrix == "ggn":
        dense = oracles.dense_block(list(oracles.fisher_columns(model, x, y, "categorical", "type-2")), names)
    else:
        sizes = [p.numel() for p in model.parameters()]
        shapes = [p.shape for p in model.parameters()]

        def loss(flat: Tensor) -> Tensor:
            parts = [v.view(s) for v, s in zip(torch.split(flat, sizes), shapes, strict=True)]
            z = torch.func.functional_call(model, dict(zip(names, parts, strict=True)), (x,))
            return nn.functional.cross_entropy(z, y)

        point = torch.cat([p.detach().flatten() for p in model.parameters()])
        dense = torch.autograd.functional.hessian(loss, point)
    b = torch.cat([gradient[name].flatten() for name in names])
    want = torch.linalg.solve(dense + 0.05 * torch.eye(len(b)).double(), b)
    flat = torch.cat([found[name].flatten() for name in names])
    torch.testing.assert_close(flat, want, rtol=1e-3, atol=1e-4 * float(want.abs().max()))
    assert baseline.worst <= 1e-5


@pytest.mark.parametrize("matrix", ["ggn", "hessian"])
def test_they_are_baselines_of_a_comparison(matrix: str) -> None:
    found = compare(
        "wine-mlp",
        ["block-fisher", "sgd"],
        baseline=matrix,
        steps=3,
        dtype="float64",
        settings={matrix: {"damping": 0.1, "lr": 0.05}},
    )
    assert found.baseline == matrix
    assert found.reference is not None
    assert found.reference.settings == {"damping": 0.1, "lr": 0.05}
    assert all(value is not None and abs(value) <= 1 for value in found["sgd"].mean_cosine.values())
    assert any(note.startswith(f"{matrix}: solved to a relative residual") for note in found.notes)


def test_large_networks_are_refused() -> None:
    with pytest.raises(CurvlabError, match="the ggn baseline is for small networks, and this one has 102,010"):
        ExactBaseline(nn.Linear(10200, 10), "ggn", 0.1)
