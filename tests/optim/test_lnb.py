"""LNB's own identities (lnb 3.2–3.5): dense solves, the whitened model, Newton, affine inputs, the norm of all."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.optim import LNB, Adam
from curvlab.optim.core import Optimizer

pytestmark = pytest.mark.usefixtures("float64")
Loss = Callable[[], Tensor]


def mlp(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4, bias=bias), nn.Tanh(), nn.Linear(4, 3, bias=bias))


def data(n: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 5, generator=generator) @ torch.randn(5, 5, generator=generator) + 1.5
    return x, torch.randint(0, 3, (n,), generator=generator)


def gradients_of(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


def with_one(a: Tensor) -> Tensor:
    return torch.cat([a, a.new_ones(len(a), 1)], dim=1)


def ridged_metric(a: Tensor, ridge: float) -> Tensor:
    rows = with_one(a)
    return rows.T @ rows / len(a) + ridge * torch.diag(torch.cat([torch.ones(a.shape[1]), torch.zeros(1)]))


@pytest.mark.parametrize("bias", [True, False])
def test_algorithm_2_written_out_densely(bias: bool) -> None:
    """Three steps on different batches with as many CG iterations as a solve needs: debiased averages of the gradient,
    the metric of the step's own batch, one norm over all neurons, decay by 1 − √ε ρ before the step."""
    (x, y), eps, ridge, rho, floor = data(90), 0.01, 0.02, 0.3, 1e-3
    model = mlp(bias)
    optimizer = LNB(model, lr=eps, ridge=ridge, weight_decay=rho, minimum_norm=floor, iterations=60)
    wanted = {name: p.detach().clone() for name, p in model.named_parameters()}
    past: list[dict[str, Tensor]] = []
    for step in range(3):
        xs, ys = x[30 * step : 30 * step + 30], y[30 * step : 30 * step + 30]
        optimizer.step(lambda: F.cross_entropy(model(xs), ys))  # noqa: B023

        reference = mlp(bias)
        reference.load_state_dict(wanted)
        past.append(gradients_of(reference, F.cross_entropy(reference(xs), ys)))
        shares = [0.9 ** (step - k) for k in range(step + 1)]
        mean = {name: sum(w * g[name] for w, g in zip(shares, past, strict=True)) / sum(shares) for name in wanted}
        features = {"0": xs, "2": reference[:2](xs).detach()}
        direction: dict[str, Tensor] = {}
        for layer, a in features.items():
            if bias:
                joined = torch.cat([mean[f"{layer}.weight"], mean[f"{layer}.bias"][:, None]], dim=1)
                solved = torch.linalg.solve(ridged_metric(a, ridge), joined.T).T
                direction[f"{layer}.weight"], direction[f"{layer}.bias"] = solved[:, :-1], solved[:, -1]
            else:
                metric = a.T @ a / len(a) + ridge * torch.eye(a.shape[1])
                direction[f"{layer}.weight"] = torch.linalg.solve(metric, mean[f"{layer}.weight"].T).T
        norm = max(floor, sum((direction[name] * mean[name]).sum().item() for name in wanted))
        assert norm > floor
        for name in wanted:
            wanted[name] = (1 - math.sqrt(eps) * rho) * wanted[name] - math.sqrt(eps / norm) * direction[name]
        for name, p in model.named_parameters():
            torch.testing.assert_close(p.detach(), wanted[name], rtol=1e-7, atol=1e-9)


def test_two_iterations_from_the_last_solution_approach_the_dense_one() -> None:
    """With a gradient and features that stay, every step continues the same solve; so few would not do from zero."""
    x, y = data()
    model = mlp()
    errors: list[float] = []
    optimizer = LNB(model, lr=0.0, ridge=0.0, momentum=0.0)
    g = gradients_of(model, F.cross_entropy(model(x), y))
    joined = torch.cat([g["0.weight"], g["0.bias"][:, None]], dim=1)
    exact = torch.linalg.solve(ridged_metric(x, 0.0), joined.T).T
    for _ in range(8):
        optimizer.step(lambda: F.cross_entropy(model(x), y))
        solution = torch.cat(
            [optimizer.state[model[0].weight]["solution"], optimizer.state[model[0].bias]["solution"][:, None]], dim=1
        )
        errors.append(((solution - exact).norm() / exact.norm()).item())
    assert errors[-1] < 1e-2 * errors[0]


def test_a_step_is_as_long_in_function_space_as_it_says() -> None:
    """Σ over neurons of E‖δs‖² = ε, with exact solves and no floor."""
    x, y = data()
    model, eps = mlp(), 1e-3
    before = copy.deepcopy(model)
    LNB(model, lr=eps, ridge=0.0, minimum_norm=0.0, online=False).step(lambda: F.cross_entropy(model(x), y))
    hidden = before[:2](x)
    moved = sum((model[i](a) - before[i](a)).square().sum(1).mean().item() for i, a in ((0, x), (2, hidden)))
    assert moved == pytest.approx(eps, rel=1e-9)


def test_a_full_batch_step_is_a_gradient_step_of_the_whitened_model() -> None:
    """3.3: f(x; Wθ) = θᵀ(Σ^-½(x − μ), 1). Both functions after the step, from the same one before it."""
    x, y = data()
    model = mlp()
    means, roots, plain = [], [], nn.ModuleList()
    features = [x, model[:2](x).detach()]
    for layer, a in zip((model[0], model[2]), features, strict=True):
        values, vectors = torch.linalg.eigh(torch.cov(a.T, correction=0))
        means.append(a.mean(0))
        roots.append(vectors @ torch.diag(values.rsqrt()) @ vectors.T)
        whitened = nn.Linear(a.shape[1], layer.out_features)
        with torch.no_grad():
            whitened.weight.copy_(layer.weight @ torch.linalg.inv(roots[-1]))
            whitened.bias.copy_(layer.bias + layer.weight @ means[-1])
        plain.append(whitened)

    def function(inputs: Tensor) -> Tensor:
        h = torch.tanh(plain[0]((inputs - means[0]) @ roots[0].T))
        return plain[1]((h - means[1]) @ roots[1].T)

    torch.testing.assert_close(function(x), model(x))
    eps = 0.05
    gradients = gradients_of(plain, F.cross_entropy(function(x), y))
    norm = sum(g.square().sum() for g in gradients.values())
    with torch.no_grad():
        for name, p in plain.named_parameters():
            p -= (eps / norm).sqrt() * gradients[name]
    LNB(model, lr=eps, ridge=0.0, minimum_norm=0.0, online=False).step(lambda: F.cross_entropy(model(x), y))
    fresh = torch.randn(20, 5)
    torch.testing.assert_close(model(fresh), function(fresh), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("bias", [True, False])
def test_squared_loss_of_one_layer_is_newton_in_one_step(bias: bool) -> None:
    """Whose rate √(ε/z₀) is 1, under a floor that is above the norm."""
    x, _ = data()
    model, y = nn.Linear(5, 2, bias=bias), torch.randn(40, 2)
    LNB(model, lr=1e6, ridge=0.0, minimum_norm=1e6, online=False).step(
        lambda: 0.5 * (model(x) - y).square().sum(1).mean()
    )
    wanted = torch.linalg.lstsq(with_one(x) if bias else x, y).solution.T
    found = torch.cat([model.weight, model.bias[:, None]], dim=1) if bias else model.weight
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_pixels_and_inverted_pixels_have_one_trajectory(online: bool, ridge: float) -> None:
    """5.2: the same function at every step on x and 1 − x, ridge and approximate solves included; Adam's are two."""
    x = torch.rand(50, 5, generator=torch.Generator().manual_seed(0)) ** 3
    y = (x.sum(1) > x.sum(1).median()).long()

    def losses(make: Callable[[nn.Module], Optimizer], inverted: bool) -> Tensor:
        model, seen = mlp(), 1 - x if inverted else x
        if inverted:
            with torch.no_grad():
                model[0].bias += model[0].weight.sum(1)
                model[0].weight.neg_()
        optimizer, found = make(model), []
        for step in range(12):
            rows = slice(None) if not online else slice(25 * (step % 2), 25 * (step % 2) + 25)
            found.append(optimizer.step(lambda: F.cross_entropy(model(seen[rows]), y[rows])))  # noqa: B023
        return torch.stack([loss for loss in found if loss is not None])

    def lnb(model: nn.Module) -> Optimizer:
        return LNB(model, lr=0.02, ridge=ridge, online=online)

    torch.testing.assert_close(losses(lnb, True), losses(lnb, False), rtol=1e-7, atol=1e-9)
    adam = [losses(lambda model: Adam(model, lr=0.02), inverted) for inverted in (True, False)]
    assert (adam[0] - adam[1]).abs().max() > 0.01


def test_the_ridge_is_on_weights_alone() -> None:
    """Much ridge: weights follow g/γ, and the bias still solves the whole of its own equation."""
    x, y = data()
    model, ridge = nn.Linear(5, 3), 1e6
    optimizer = LNB(model, lr=0.0, ridge=ridge, online=False)
    optimizer.step(lambda: F.cross_entropy(model(x), y))
    g = gradients_of(model, F.cross_entropy(model(x), y))
    direction = optimizer.direction(g)
    torch.testing.assert_close(direction["bias"], g["bias"], rtol=1e-4, atol=1e-6)
    wanted = (g["weight"] - torch.outer(g["bias"], x.mean(0))) / ridge
    torch.testing.assert_close(direction["weight"], wanted, rtol=1e-4, atol=1e-12)


class Patches(nn.Module):
    """A class token, positions and a norm around one neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 5)), nn.Parameter(torch.randn(1, 4, 5))
        self.norm, self.mix = nn.LayerNorm(5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.place
        return self.mix(self.norm(x)).mean(1)


def test_tokens_positions_and_norms_have_the_identity_metric_and_count_in_the_norm() -> None:
    model, x, y = Patches(), torch.randn(12, 3, 5), torch.randint(0, 3, (12,))
    optimizer = LNB(model, lr=0.01, minimum_norm=0.0, online=False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    g = gradients_of(model, F.cross_entropy(model(x), y))
    optimizer.step(lambda: F.cross_entropy(model(x), y))
    direction = optimizer.direction(g)
    identity = [name for name in g if not name.startswith("mix")]
    assert all(torch.equal(direction[name], g[name]) for name in identity)
    assert not torch.allclose(direction["mix.weight"], g["mix.weight"])
    norm = sum((direction[name] * g[name]).sum() for name in g)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] - (0.01 / norm).sqrt() * direction[name])
    assert {name for name, how in optimizer.coverage().items() if how == "lnb"} == {"mix.weight", "mix.bias"}


@pytest.mark.parametrize("online", [True, False])
def test_an_embedding_is_solved_by_the_average_of_its_counts(online: bool) -> None:
    """Its metric is diagonal, so that its average is all there is to know: θ̂ = ĝ/(share of the token + γ)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 3), nn.Flatten(), nn.Linear(12, 2))
    x, y = torch.randint(0, 5, (8, 4)), torch.randint(0, 2, (8,))
    optimizer = LNB(model, lr=0.0, ridge=0.01, online=online)
    optimizer.step(lambda: F.cross_entropy(model(x), y))
    g = gradients_of(model, F.cross_entropy(model(x), y))
    share = torch.bincount(x.flatten(), minlength=6) / x.numel()
    torch.testing.assert_close(optimizer.direction(g)["0.weight"], g["0.weight"] / (share + 0.01)[:, None])


def test_a_gradient_that_turns_round_is_still_descended() -> None:
    """From the solution for −g, two iterations would not come back: the start is scaled first."""
    x, y = data()
    model = mlp()
    optimizer = LNB(model, lr=0.0, ridge=0.0, momentum=0.0)
    for _ in range(5):
        optimizer.step(lambda: -100 * F.cross_entropy(model(x), y))
    g = gradients_of(model, F.cross_entropy(model(x), y))
    inner = {name: (d * g[name]).sum() for name, d in optimizer.direction(g).items()}
    assert inner["0.weight"] + inner["0.bias"] > 0
    assert inner["2.weight"] + inner["2.bias"] > 0


def test_the_floor_bounds_the_rate() -> None:
    """Near the optimum steps become shorter than √ε: θ ← θ − √(ε/z₀)θ̂, so that a constant ε converges."""
    x, _ = data()
    target = torch.randn(2, 5)
    for floor, converges in ((1.0, True), (0.0, False)):
        torch.manual_seed(0)
        model = nn.Linear(5, 2, bias=False)
        optimizer = LNB(model, lr=0.04, ridge=0.0, minimum_norm=floor, online=False)
        for _ in range(150):
            optimizer.step(lambda: 0.5 * (model(x) - x @ target.T).square().sum(1).mean())  # noqa: B023
        error = (model.weight - target).norm().item()
        assert (error < 1e-6) is converges, error
