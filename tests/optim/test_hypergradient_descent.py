"""S-HD and PP-HD against autograd through one step, and S-HD against the rule that Baydin et al. print."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.optim import HypergradientDescent, ParameterwiseHypergradientDescent, create

pytestmark = pytest.mark.usefixtures("float64")
TIGHT = {"rtol": 1e-9, "atol": 1e-13}
KINDS = (HypergradientDescent, ParameterwiseHypergradientDescent)


def problem() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3))
    model.scale = nn.Parameter(torch.tensor(1.3))
    model.register_forward_hook(lambda module, _, z: z * module.scale)
    return model, torch.randn(12, 4), torch.randint(0, 3, (12,))


def gradients_of(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(F.cross_entropy(model(x), y), list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", ["sgd", "adam"])
def test_the_hypergradient_is_autograd_through_one_step(kind: type[HypergradientDescent], base: str) -> None:
    model, x, y = problem()
    optimizer = kind(model, lr=0.05, base=base, hyper_optimizer="sgd", hyper_lr=0.1)
    for _ in range(3):
        optimizer.step(lambda: F.cross_entropy(model(x[:7]), y[:7]))
    for group in optimizer.param_groups:
        group["hyper_lr"] = 0.0
    parameters = dict(model.named_parameters())
    rates = {block: m.clone().requires_grad_() for block, m in optimizer.matrices.items()}
    moved = {}
    for name, g in gradients_of(model, x, y).items():
        block = name if name in rates else name.rpartition(".")[0]
        u, state = rates[block] * g, optimizer.state[parameters[name]]
        if base == "sgd":
            p = 0.9 * state["momentum"] + u
        else:
            t = state["count"] + 1
            mean, square = 0.9 * state["mean"] + 0.1 * u, 0.999 * state["square"] + 0.001 * u**2
            p = mean / (1 - 0.9**t) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
        moved[name] = parameters[name].detach() - 0.05 * p
    next_loss = F.cross_entropy(torch.func.functional_call(model, moved, (x.flip(1),)), y)
    wanted = dict(zip(rates, torch.autograd.grad(next_loss, list(rates.values())), strict=True))
    optimizer.step(lambda: F.cross_entropy(model(x), y))
    for group in optimizer.param_groups:
        group["hyper_lr"] = 1.0
    optimizer.step(lambda: F.cross_entropy(model(x.flip(1)), y))
    for block, m in optimizer.matrices.items():
        torch.testing.assert_close(rates[block].detach() - m, wanted[block], rtol=1e-8, atol=1e-13)
        assert wanted[block].abs().max() > 1e-12


def test_one_layer_is_the_rule_of_baydin() -> None:
    """α ← α + β ∇f(θ⁽ᵗ⁾)ᵀ∇f(θ⁽ᵗ⁻¹⁾), θ ← θ − α∇f with α = εr and β = ρε². They change α before the step; fop's
    Algorithm 1, and so this one, after it."""
    torch.manual_seed(0)
    layer, x, target = nn.Linear(3, 2, bias=False), torch.randn(20, 3), torch.randn(20, 2)
    rate, rho = 0.05, 0.4
    optimizer = HypergradientDescent(layer, lr=rate, momentum=0.0, hyper_optimizer="sgd", hyper_lr=rho)
    w, alpha, last = layer.weight.detach().clone(), rate, torch.zeros(2, 3)
    for _ in range(10):
        optimizer.step(lambda: 0.5 * (layer(x) - target).square().sum() / 20)
        g = (x @ w.T - target).T @ x / 20
        w = w - alpha * g
        alpha = alpha + rho * rate**2 * (g * last).sum().item()
        last = g
    torch.testing.assert_close(layer.weight.detach(), w, **TIGHT)
    assert rate * optimizer.matrices["weight"].item() == pytest.approx(alpha, rel=1e-12)
    assert alpha > 1.01 * rate


def test_adam_learns_the_rates_by_default() -> None:
    """Its first steps are ρ long, whatever the hypergradient: each rate moves by 1e-4."""
    model, x, y = problem()
    optimizer = create("pp-hd", model, lr=0.01)
    for _ in range(2):
        optimizer.step(lambda: F.cross_entropy(model(x), y))
    moved = torch.cat([(m - 1).abs().flatten() for m in optimizer.matrices.values()])
    assert 0.99e-4 < moved.median() < 1.01e-4


def test_layers_share_a_rate_and_every_number_has_its_own() -> None:
    model, _, _ = problem()
    layers, numbers = create("s-hd", model), create("pp-hd", model)
    assert {block: m.ndim for block, m in layers.matrices.items()} == {"scale": 0, "0": 0, "2": 0, "3": 0}
    shapes = {name: m.shape for name, m in numbers.matrices.items()}
    assert shapes == {name: p.shape for name, p in model.named_parameters()}
    assert set(layers.coverage().values()) == {"s-hd"}
    assert set(numbers.coverage().values()) == {"pp-hd"}
