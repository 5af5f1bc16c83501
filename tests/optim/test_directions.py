"""Directions and trajectories against independent oracles in float64: dense solves, roots by eigh, torch.optim."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab import curvature
from curvlab.optim import EKFAC, KFAC, SGD, TNT, Adam, BlockFisher, RMSprop, Shampoo
from curvlab.optim.core import Optimizer

pytestmark = pytest.mark.usefixtures("float64")
TIGHT = {"rtol": 1e-8, "atol": 1e-10}


def problem() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))
    return model, torch.randn(7, 2, 3, 3), torch.randint(0, 3, (7,))


def gradients_of(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    return dict(
        zip(parameters, torch.autograd.grad(F.cross_entropy(model(x), y), list(parameters.values())), strict=True)
    )


def measured(optimizer: Optimizer, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The direction for the gradient, after one step of length zero on it."""
    optimizer.step(lambda: F.cross_entropy(model(x), y))
    return optimizer.direction(gradients_of(model, x, y))


def joined(tensors: dict[str, Tensor], layer: str) -> Tensor:
    weight, bias = tensors[f"{layer}.weight"], tensors[f"{layer}.bias"]
    return torch.cat([weight.flatten(1), bias[:, None]], dim=1)


@pytest.mark.parametrize("rule", ["exact", "factored", "equal"])
@pytest.mark.parametrize("approx", ["expand", "reduce"])
def test_kfac_is_the_dense_solve(rule: str, approx: str) -> None:
    model, x, y = problem()
    lam = 0.01
    optimizer = KFAC(model, lr=0.0, damping=lam, rule=rule, kfac_approx=approx, fisher_type="empirical")
    direction = measured(optimizer, model, x, y)
    factors = curvature.kfac_factors(model, x, y, likelihood="categorical", fisher_type="empirical", kfac_approx=approx)
    gradients = gradients_of(model, x, y)
    for name, f in factors.items():
        a, g = f.input_factor, f.gradient_factor
        eye_a, eye_g = torch.eye(len(a)), torch.eye(len(g))
        if rule == "exact":
            dense = torch.kron(g, a) + lam * torch.eye(len(a) * len(g))
        else:
            pi = 1.0 if rule == "equal" else ((a.trace() / len(a)) / (g.trace() / len(g))).sqrt()
            dense = torch.kron(g + lam**0.5 / pi * eye_g, a + lam**0.5 * pi * eye_a)
        wanted = torch.linalg.solve(dense, joined(gradients, name).flatten())
        torch.testing.assert_close(joined(direction, name).flatten(), wanted, **TIGHT)


def test_kfac_with_much_damping_follows_the_gradient() -> None:
    model, x, y = problem()
    direction = measured(KFAC(model, lr=0.0, damping=1e10, rule="exact", fisher_type="empirical"), model, x, y)
    for name, g in gradients_of(model, x, y).items():
        torch.testing.assert_close(direction[name] * 1e10, g, rtol=1e-7, atol=1e-12)


def test_ekfac_starts_as_exact_kfac_and_then_uses_the_rotated_second_moments() -> None:
    model, x, y = problem()
    lam = 0.01
    optimizer = EKFAC(model, lr=0.0, damping=lam, fisher_type="empirical", inverse_interval=100, decay=0.9)
    first = measured(optimizer, model, x, y)
    exact = measured(KFAC(model, lr=0.0, damping=lam, rule="exact", fisher_type="empirical"), model, x, y)
    for name, d in exact.items():
        torch.testing.assert_close(first[name], d, **TIGHT)
    second = measured(optimizer, model, x, y)
    factors = curvature.kfac_factors(model, x, y, likelihood="categorical", fisher_type="empirical")
    columns = gradients_per_example(model, x, y)
    for name, f in factors.items():
        (la, qa), (lg, qg) = torch.linalg.eigh(f.input_factor), torch.linalg.eigh(f.gradient_factor)
        rotated = torch.stack([qg.T @ joined(column, name) @ qa for column in columns])
        scales = 0.9 * torch.outer(lg, la) + 0.1 * rotated.square().mean(0)
        g = qg.T @ joined(gradients_of(model, x, y), name) @ qa
        torch.testing.assert_close(joined(second, name), qg @ (g / (scales + lam)) @ qa.T, rtol=1e-6, atol=1e-9)


def gradients_per_example(model: nn.Module, x: Tensor, y: Tensor) -> list[dict[str, Tensor]]:
    return [gradients_of(model, x[n : n + 1], y[n : n + 1]) for n in range(len(x))]


@pytest.mark.parametrize("statistic", ["batch", "per-example"])
def test_tnt_is_the_dense_solve(statistic: str) -> None:
    model, x, y = problem()
    eps = 0.05
    direction = measured(TNT(model, lr=0.0, damping=eps, statistic=statistic, fisher_type="empirical"), model, x, y)
    factors = curvature.tensor_normal_factors(
        model, x, y, likelihood="categorical", fisher_type="empirical", statistic=statistic
    )
    for name, g in gradients_of(model, x, y).items():
        dense = torch.ones(1, 1)
        for u in factors[name].factors:
            dense = torch.kron(dense, u + eps * torch.eye(len(u)))
        wanted = torch.linalg.solve(dense, g.flatten()).reshape(g.shape)
        torch.testing.assert_close(direction[name], wanted, **TIGHT)


def test_shampoo_is_the_dense_root() -> None:
    """Coupled Newton stops at a relative error of 1e-6, so that is what the directions are compared to."""
    model, x, y = problem()
    eps = 0.05
    direction = measured(Shampoo(model, lr=0.0, damping=eps), model, x, y)
    for name, g in gradients_of(model, x, y).items():
        modes = g.reshape(g.shape[0], g.shape[1], -1) if g.ndim > 2 else g
        wanted = modes
        for mode in range(modes.ndim):
            flat = modes.movedim(mode, 0).reshape(modes.shape[mode], -1)
            values, vectors = torch.linalg.eigh(flat @ flat.T + eps * torch.eye(len(flat)))
            root = (vectors * values ** (-1 / (2 * modes.ndim))) @ vectors.T
            wanted = torch.tensordot(root, wanted, dims=([1], [mode])).movedim(0, mode)
        torch.testing.assert_close(direction[name], wanted.reshape(g.shape), rtol=1e-5, atol=1e-7)


def test_block_fisher_is_the_dense_solve() -> None:
    model, x, y = problem()
    direction = measured(BlockFisher(model, lr=0.0, damping=0.01, fisher_type="empirical"), model, x, y)
    blocks = curvature.block_fisher(model, x, y, likelihood="categorical", fisher_type="empirical")
    for name, block in blocks.items():
        wanted = torch.linalg.solve(
            block + 0.01 * torch.eye(len(block)), joined(gradients_of(model, x, y), name).flatten()
        )
        torch.testing.assert_close(joined(direction, name).flatten(), wanted, **TIGHT)


def test_averages_are_exponential_and_warm_starts_are_means() -> None:
    model, x, y = problem()
    optimizer = KFAC(model, lr=0.0, damping=0.01, fisher_type="empirical", decay=0.75)
    halves = [(x[:4], y[:4]), (x[4:], y[4:])]
    a = [
        curvature.kfac_factors(model, *half, likelihood="categorical", fisher_type="empirical")["0"].input_factor
        for half in halves
    ]
    for xs, ys in halves:
        optimizer.step(lambda xs=xs, ys=ys: F.cross_entropy(model(xs), ys))
    torch.testing.assert_close(optimizer.averages["0"]["input"][0], 0.75 * a[0] + 0.25 * a[1])
    warm = KFAC(model, lr=0.0, damping=0.01, fisher_type="empirical")
    seconds = warm.warm_start([lambda xs=xs, ys=ys: F.cross_entropy(model(xs), ys) for xs, ys in halves])
    assert seconds > 0
    parts = [len(ys) / len(y) for _, ys in halves]  # over examples: the halves are not equally long
    torch.testing.assert_close(warm.averages["0"]["input"][0], parts[0] * a[0] + parts[1] * a[1])


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_first_order_trajectories_equal_torchs(kind: str) -> None:
    (mine, x, y), (theirs, _, _) = problem(), problem()
    if kind == "sgd":
        ours: Optimizer = SGD(mine, lr=0.1, momentum=0.9)
        reference: torch.optim.Optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    else:
        ours = Adam(mine, lr=0.01, weight_decay=0.1)
        reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(20):
        ours.step(lambda: F.cross_entropy(mine(x), y))
        reference.zero_grad()
        F.cross_entropy(theirs(x), y).backward()
        reference.step()
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, **TIGHT)


def test_rmsprop_equals_torchs_once_both_know_the_second_moment() -> None:
    """torch starts v at zero; with v set to the warm start of ours they are the same method."""
    (mine, x, y), (theirs, _, _) = problem(), problem()
    ours = RMSprop(mine, lr=0.01, alpha=0.9, momentum=0.9, eps=1e-6)
    ours.warm_start([lambda: F.cross_entropy(mine(x), y)])
    reference = torch.optim.RMSprop(theirs.parameters(), lr=0.01, alpha=0.9, momentum=0.9, eps=1e-6)
    F.cross_entropy(theirs(x), y).backward()
    reference.step()
    reference.zero_grad()
    theirs.load_state_dict(problem()[0].state_dict())
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        reference.state[q]["square_avg"].copy_(ours.state[p]["square"])
        reference.state[q]["momentum_buffer"].zero_()
    for _ in range(10):
        ours.step(lambda: F.cross_entropy(mine(x), y))
        reference.zero_grad()
        F.cross_entropy(theirs(x), y).backward()
        reference.step()
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, **TIGHT)
