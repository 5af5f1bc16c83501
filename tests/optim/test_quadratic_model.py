"""(α, μ) against the minimiser of the dense quadratic: the Gauss–Newton matrix by autograd, the solve by lstsq."""

from __future__ import annotations

import oracles
import pytest
import torch
from cases import CASES, Case, Mean
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from curvlab.capture.jacobian import jacobian_product
from curvlab.capture.model_call import ModelCall
from curvlab.likelihoods import likelihood
from curvlab.optim.levenberg_marquardt import HESSIAN_FREE, reduction_ratio
from curvlab.optim.norm_constraint import norm_constraint, squared_length
from curvlab.optim.quadratic_model import Quadratic, gauss_newton_products, quadratic

pytestmark = pytest.mark.usefixtures("float64")


class Block(nn.Module):
    """One transformer block with a head."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
        self.mean, self.out = Mean(1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.mean(self.block(x)))


CHOSEN = [
    *(case for case in CASES if case.name in ("linear", "gaussian", "bernoulli", "conv2d", "position-outputs", "tied")),
    Case("transformer", Block, (5, 3, 4), (3,)),
]


def directions(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    p, previous = (
        {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()} for _ in range(2)
    )
    return p, previous


def flat(vector: dict[str, Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in vector.values()])


def dense(case: Case) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """Model, x, ∇h and the Gauss–Newton matrix of the mean loss."""
    model, x, y = case.build()
    names = [name for name, _ in model.named_parameters()]
    matrix = oracles.dense_block(list(oracles.fisher_columns(model, x, y, case.likelihood, "type-2")), names)
    loss = sum(oracles.loss_of(model(x[n : n + 1])[0], y[n], case.likelihood) for n in range(len(x))) / len(x)
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    return model, x, torch.cat([g.flatten() for g in gradient]), matrix


def model_of(case: Case, damping: float) -> tuple[Quadratic, Tensor, Tensor, Tensor]:
    """The quadratic in the span as the library makes it, and dense: matrix, slope, basis."""
    model, x, gradient, matrix = dense(case)
    basis = directions(model)
    call = ModelCall.of(model, (x,), {})
    (z, first), (_, second) = (jacobian_product(model, call, v) for v in basis)
    products = gauss_newton_products(likelihood(case.likelihood), z, [first, second])
    shapes = {name: p.shape for name, p in model.named_parameters()}
    parts = gradient.split([shape.numel() for shape in shapes.values()])
    named = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
    damped = matrix + damping * torch.eye(len(matrix))
    return (
        quadratic(named, basis, products, dict.fromkeys(named, damping)),
        damped,
        gradient,
        torch.stack([flat(v) for v in basis]),
    )


@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_the_step_minimises_the_dense_quadratic_in_the_span(case: Case, damping: float) -> None:
    found, matrix, slope, basis = model_of(case, damping)
    torch.testing.assert_close(found.curvature, basis @ matrix @ basis.T, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found.slope, basis @ slope, rtol=1e-9, atol=1e-11)
    best = found.minimiser()
    wanted = torch.linalg.lstsq(basis @ matrix @ basis.T, -(basis @ slope)[:, None]).solution[:, 0]
    torch.testing.assert_close(best, wanted, rtol=1e-7, atol=1e-10)
    step = best @ basis
    change = 0.5 * step @ matrix @ step + slope @ step
    torch.testing.assert_close(found.change(best), change, rtol=1e-9, atol=1e-12)
    generator = torch.Generator().manual_seed(5)
    for size in (1e-3, 0.1, 10.0):
        for _ in range(20):
            other = best + size * torch.randn(2, generator=generator)
            assert found.change(other) >= change


def test_one_direction_is_equation_26() -> None:
    found, matrix, slope, basis = model_of(CHOSEN[0], 0.1)
    p = basis[0]
    alone = Quadratic(found.curvature * torch.tensor([[1.0, 0.0], [0.0, 0.0]]), found.slope * torch.tensor([1.0, 0.0]))
    alpha, mu = alone.minimiser()
    torch.testing.assert_close(alpha, -(slope @ p) / (p @ matrix @ p))
    assert mu == 0


def test_two_steps_on_a_quadratic_are_conjugate_gradients() -> None:
    """With p = −∇h and δ₀ the last step, k steps find the minimum of a quadratic in k dimensions (grosse section 6)."""
    generator = torch.Generator().manual_seed(6)
    root = torch.randn(6, 6, generator=generator)
    matrix, b = root @ root.T + torch.eye(6), torch.randn(6, generator=generator)
    w, previous = torch.zeros(6), torch.zeros(6)
    for _ in range(6):
        gradient = matrix @ w + b
        basis = torch.stack([-gradient, previous])
        coefficients = Quadratic(basis @ matrix @ basis.T, basis @ gradient).minimiser()
        previous = coefficients @ basis
        w = w + previous
    torch.testing.assert_close(w, torch.linalg.solve(matrix, -b), rtol=1e-7, atol=1e-9)


def test_the_quadratic_of_least_squares_is_the_loss() -> None:
    """Gauss–Newton is exact there: ρ = 1 without damping."""
    model = nn.Linear(4, 2)
    x, y = torch.randn(9, 4), torch.randn(9, 2)

    def loss() -> Tensor:
        return 0.5 * (model(x) - y).square().sum() / len(x)

    before = loss()
    gradient = dict(zip(("weight", "bias"), torch.autograd.grad(before, list(model.parameters())), strict=True))
    previous = directions(model)[1]
    call = ModelCall.of(model, (x,), {})
    (z, first), (_, second) = (jacobian_product(model, call, v) for v in (gradient, previous))
    products = gauss_newton_products(likelihood("gaussian"), z, [first, second])
    found = quadratic(gradient, (gradient, previous), products, dict.fromkeys(gradient, 0.0))
    best = found.minimiser()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += best[0] * gradient[name] + best[1] * previous[name]
    ratio = reduction_ratio(before.detach(), loss().detach(), found.change(best))
    torch.testing.assert_close(ratio, torch.tensor(1.0))


scale = st.floats(-8, 8).map(lambda exponent: 10.0**exponent)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 2**32 - 1), scale, scale, st.floats(-1, 1))
def test_no_scale_and_no_angle_makes_it_worse_than_one_direction(
    seed: int, first: float, second: float, cosine: float
) -> None:
    """Directions of any lengths and at any angle: finite, and at least as low as the best along either alone.

    Up to the tolerance of parallel directions: 1 − cos² below √eps costs at most that share.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([first, second], dtype=torch.float64)
    curvature = torch.tensor([[1.0, cosine], [cosine, 1.0]], dtype=torch.float64) * torch.outer(lengths, lengths)
    # A slope that a gradient can have: B c for some c.
    slope = curvature @ (torch.randn(2, generator=generator, dtype=torch.float64) / lengths)
    found = Quadratic(curvature, slope)
    best = found.minimiser()
    assert best.isfinite().all()
    change = found.change(best)
    alone = -0.5 * slope[0] ** 2 / curvature[0, 0]
    assert change <= alone * (1 - 1e-6) + 1e-12


@pytest.mark.parametrize(
    ("curvature", "slope", "wanted"),
    [
        ([[2.0, 0.0], [0.0, 0.0]], [-4.0, 0.0], [2.0, 0.0]),  # no previous step
        ([[2.0, 4.0], [4.0, 8.0]], [-4.0, -8.0], [2.0, 0.0]),  # parallel to p
        ([[2.0, -4.0], [-4.0, 8.0]], [-4.0, 8.0], [2.0, 0.0]),  # the other way round
        ([[0.0, 0.0], [0.0, 8.0]], [0.0, -4.0], [0.0, 0.5]),  # no p
        ([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0], [0.0, 0.0]),
        ([[-1.0, 0.0], [0.0, 8.0]], [1.0, -4.0], [0.0, 0.5]),  # not convex along p by rounding
        ([[2.0, 0.0], [0.0, float("inf")]], [-4.0, 1.0], [2.0, 0.0]),
        ([[2.0, float("nan")], [float("nan"), 8.0]], [-4.0, 8.0], [2.0, 0.0]),
        ([[float("nan"), 0.0], [0.0, 8.0]], [-4.0, -4.0], [0.0, 0.5]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_systems(
    curvature: list[list[float]], slope: list[float], wanted: list[float], dtype: torch.dtype
) -> None:
    found = Quadratic(torch.tensor(curvature, dtype=dtype), torch.tensor(slope, dtype=dtype)).minimiser()
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=dtype))


def test_a_gradient_that_is_no_number_is_not_hidden() -> None:
    found = Quadratic(torch.eye(2), torch.tensor([float("nan"), 1.0])).minimiser()
    assert found.isnan().any()


def test_every_parameter_has_its_own_damping_and_names_may_be_missing() -> None:
    p, previous = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}, {"b": torch.tensor([-1.0])}
    damping = {"a": 0.5, "b": torch.tensor(2.0)}
    found = quadratic({"a": torch.tensor([1.0, 1.0])}, (p, previous), torch.ones(2, 2), damping)
    assert found.curvature.tolist() == [[1 + 0.5 * 5 + 2 * 9, 1 - 6.0], [1 - 6.0, 1 + 2.0]]
    assert found.slope.tolist() == [3.0, 0.0]


def test_half_precision_outputs_are_summed_in_single_precision() -> None:
    z, tangent = torch.zeros(4096, 3, dtype=torch.bfloat16), torch.ones(4096, 3, dtype=torch.bfloat16)
    products = gauss_newton_products(likelihood("gaussian"), z, [tangent])
    assert products.dtype == torch.float32
    assert products.item() == 3.0


def test_nothing_is_read_from_the_device() -> None:
    """No call that would wait for a GPU's answer."""

    class NoReads(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            assert str(func) not in ("aten._local_scalar_dense.default", "aten.nonzero.default"), func
            return func(*args, **(kwargs or {}))

    p, q = {"w": torch.randn(3)}, {"w": torch.randn(3)}
    z = torch.randn(5, 3)
    with NoReads():
        with pytest.raises(AssertionError):
            p["w"].sum().item()
        products = gauss_newton_products(likelihood("categorical"), z, [z, z + 1])
        found = quadratic(p, (p, q), products, {"w": torch.tensor(0.1)})
        change = found.change(found.minimiser())
        ratio = reduction_ratio(torch.tensor(1.0), torch.tensor(0.5), change)
        HESSIAN_FREE.update(torch.tensor(0.1), ratio)
        HESSIAN_FREE.accepts(ratio)
        norm_constraint(squared_length(p, q, {"w": 0.1}), 1e-3)
