"""FOP against autograd through one step, and against the paper's equations written out with dense matrices."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.operators.eigenvalues import eigenvalues
from curvlab.operators.matrix import matrix
from curvlab.optim import FOP

pytestmark = pytest.mark.usefixtures("float64")
TIGHT = {"rtol": 1e-9, "atol": 1e-12}
FORMS: dict[str, dict[str, Any]] = {
    "full": {"form": "full"},
    "low-rank": {"form": "low-rank", "rank": 2, "sigma": 0.3},
    "rank above the dimension": {"form": "low-rank", "rank": 50, "sigma": 0.3},
    "spatial": {"form": "spatial"},
    "full, normalised": {"form": "full", "norm": True},
    "low-rank, normalised": {"form": "low-rank", "rank": 3, "sigma": 0.3, "norm": True},
    "spatial, normalised": {"form": "spatial", "norm": True},
}
BASES = ("sgd", "momentum", "adam")
each_form = pytest.mark.parametrize("form", FORMS)


def problem() -> tuple[nn.Module, Tensor, Tensor]:
    """A convolution with few channels (3·1 rows of 6 positions) and one with more, wide and high linear layers."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, (2, 3)), nn.Tanh(), nn.Conv2d(3, 5, 2), nn.Tanh(), nn.Flatten(), nn.Linear(10, 4), nn.Tanh(),
        nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3, bias=False),
    )  # fmt: skip
    return model, torch.randn(9, 1, 3, 5), torch.randint(0, 3, (9,))


def settings(form: str, base: str) -> dict[str, Any]:
    made = {**FORMS[form], "lr": 0.1, **({} if base == "adam" else {"momentum": 0.9 if base == "momentum" else 0.0})}
    return {**made, "base": "adam", "lr": 0.02} if base == "adam" else made


def loss_of(model: nn.Module, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(torch.func.functional_call(model, weights, (x,)), y)


def gradients_of(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(F.cross_entropy(model(x), y), list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


def dense(m: Tensor, form: dict[str, Any]) -> Tensor:
    """P of the paper: eq. 2 or 5, and 9."""
    p = m @ m.T + (torch.eye(len(m)) if form["form"] == "low-rank" else 0)
    return p * len(m) ** 0.5 / torch.linalg.matrix_norm(p) if form.get("norm") else p


def preconditioned(p: Tensor, g: Tensor) -> Tensor:
    """P times the layer's matrix of inputs by outputs, or of kernel positions by channels (fop 2.2, 2.3)."""
    if g.ndim == 2:
        return (p @ g.T).T
    as_matrix = g.movedim((0, 1), (-1, -2)).reshape(len(p), -1)  # k × k × I × O, then k² × IO
    return (p @ as_matrix).reshape(*g.shape[2:], g.shape[1], g.shape[0]).movedim((-1, -2), (0, 1))


def differentiable_step(
    optimizer: FOP, weights: dict[str, Tensor], u: dict[str, Tensor], lr: float
) -> dict[str, Tensor]:
    """The base optimizer's next step from its own state, with a graph."""
    parameters, moved = dict(optimizer.model.named_parameters()), {}
    group = optimizer.param_groups[0]
    for name, w in weights.items():
        state = optimizer.state.get(parameters[name], {})
        if group["base"] == "sgd":
            p = group["momentum"] * state.get("momentum", 0) + u[name]
        else:
            t = state.get("count", 0) + 1
            mean = 0.9 * state.get("mean", 0) + 0.1 * u[name]
            square = 0.999 * state.get("square", 0) + 0.001 * u[name] ** 2
            p = mean / (1 - 0.9**t) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
        moved[name] = w - lr * p
    return moved


@each_form
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("warm", [0, 3])
def test_the_hypergradient_is_autograd_through_one_step(form: str, base: str, warm: int) -> None:
    """∂J(θ − ε p(P(M)g))/∂M at M; plain gradient descent on M shows it, for the first pair of gradients and a later
    one. M is held during the step, since the paper takes the newest M in place of the one that was used."""
    model, x, y = problem()
    optimizer = FOP(model, **settings(form, base), hyper_optimizer="sgd", hyper_lr=0.01)
    for _ in range(warm):
        optimizer.step(lambda: F.cross_entropy(model(x[:5]), y[:5]))
    for group in optimizer.param_groups:
        group["hyper_lr"] = 0.0
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    matrices = {name: m.clone().requires_grad_() for name, m in optimizer.matrices.items()}
    g = gradients_of(model, x, y)
    u = {
        name: preconditioned(dense(matrices[name], FORMS[form]), g[name]) if name in matrices else g[name] for name in g
    }
    moved = differentiable_step(optimizer, weights, u, optimizer.param_groups[0]["lr"])
    x_next, y_next = x.flip(0)[:6] + 0.1, y.flip(0)[:6]
    wanted = dict(
        zip(
            matrices,
            torch.autograd.grad(loss_of(model, moved, x_next, y_next), list(matrices.values())),
            strict=True,
        )
    )
    optimizer.step(lambda: F.cross_entropy(model(x), y))
    before = {name: m.clone() for name, m in optimizer.matrices.items()}
    for group in optimizer.param_groups:
        group["hyper_lr"], group["lr"] = 1.0, 123.0  # the rate that counts is that of the step that was taken
    optimizer.step(lambda: F.cross_entropy(model(x_next), y_next))
    assert wanted.keys() == optimizer.matrices.keys()
    for name, m in optimizer.matrices.items():
        torch.testing.assert_close(
            before[name] - m, wanted[name], rtol=1e-8, atol=1e-13, msg=lambda s, n=name: f"{n}: {s}"
        )
        assert wanted[name].abs().max() > 1e-13


@each_form
@pytest.mark.parametrize("base", ["sgd", "momentum"])
@pytest.mark.parametrize("hyper", ["sgd", "adam"])
def test_the_trajectory_is_algorithm_1_with_dense_matrices(form: str, base: str, hyper: str) -> None:
    """Algorithm 1 and eq. 6–8 as printed, P formed, the hypergradient by eq. 4 in dense form or, normalised, by
    autograd of ⟨∇J⁽ᵗ⁾, P(M)∇J⁽ᵗ⁻¹⁾⟩; Adam is torch's."""
    (mine, x, y), (theirs, _, _) = problem(), problem()
    rho, lr, alpha = (1e-2, 0.1, 0.9 if base == "momentum" else 0.0)
    optimizer = FOP(mine, **settings(form, base), hyper_optimizer=hyper, hyper_lr=rho)
    matrices = {name: m.clone() for name, m in optimizer.matrices.items()}
    learners = {
        name: torch.optim.SGD([m], lr=rho) if hyper == "sgd" else torch.optim.Adam([m], lr=rho)
        for name, m in matrices.items()
    }
    velocity = {name: torch.zeros_like(p) for name, p in theirs.named_parameters()}
    cached: dict[str, Tensor] = {}
    for step in range(12):
        xs, ys = x[step % 4 :], y[step % 4 :]
        optimizer.step(lambda xs=xs, ys=ys: F.cross_entropy(mine(xs), ys))
        g = gradients_of(theirs, xs, ys)
        with torch.no_grad():
            for name, p in theirs.named_parameters():
                u = preconditioned(dense(matrices[name], FORMS[form]), g[name]) if name in matrices else g[name]
                velocity[name] = alpha * velocity[name] + u
                p -= lr * velocity[name]
        for name, m in matrices.items() if cached else ():
            if FORMS[form].get("norm"):
                leaf = m.clone().requires_grad_()
                inner = (g[name] * preconditioned(dense(leaf, FORMS[form]), cached[name])).sum()
                m.grad = -lr * torch.autograd.grad(inner, leaf)[0]
            else:
                now, before = (inputs_by_outputs(t[name]) for t in (g, cached))
                m.grad = -lr * (now @ before.T + before @ now.T) @ m
            learners[name].step()
        cached = g
    for name, m in matrices.items():
        torch.testing.assert_close(optimizer.matrices[name], m, **TIGHT)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, **TIGHT)


def inputs_by_outputs(g: Tensor) -> Tensor:
    return g.T if g.ndim == 2 else g.permute(2, 3, 1, 0).reshape(g[0, 0].numel(), -1)


def test_low_rank_of_the_whole_dimension_is_full_rank() -> None:
    """I + MMᵀ with k = d follows the dense I + M̃M̃ᵀ of any M̃ = MQ: P does not depend on the choice of the factor."""
    (a, x, y), (b, _, _) = problem(), problem()
    one, two = (FOP(m, form="low-rank", rank=99, sigma=0.3, hyper_optimizer="sgd", hyper_lr=1.0) for m in (a, b))
    two.step(lambda: F.cross_entropy(b(x), y))
    one.step(lambda: F.cross_entropy(a(x), y))
    for state in two.learned.values():
        m = state["matrix"]
        assert m.shape[0] == m.shape[1]
        state["matrix"] = m @ torch.linalg.qr(torch.randn_like(m)).Q
    for _ in range(5):
        one.step(lambda: F.cross_entropy(a(x), y))
        two.step(lambda: F.cross_entropy(b(x), y))
    for name, m in one.matrices.items():
        other = two.matrices[name]
        assert not torch.allclose(m, other)
        torch.testing.assert_close(m @ m.T, other @ other.T, **TIGHT)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, **TIGHT)


def test_without_learning_it_is_the_base_optimizer() -> None:
    for base, theirs in (("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)):
        (a, x, y), (b, _, _) = problem(), problem()
        optimizer = FOP(a, lr=0.01, base=base, hyper_lr=0.0)
        reference = theirs(b.parameters(), lr=0.01, **({"momentum": 0.9} if base == "sgd" else {}))
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(a(x), y).backward()
            optimizer.step()
            reference.zero_grad()
            F.cross_entropy(b(x), y).backward()
            reference.step()
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            torch.testing.assert_close(p, q, **TIGHT)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_backward_and_step_is_step_of_a_closure(set_to_none: bool) -> None:
    """Also when the gradients' memory is written again: the last gradient is kept, not referred to."""
    (a, x, y), (b, _, _) = problem(), problem()
    closed, plain = (FOP(m, hyper_lr=1e-2) for m in (a, b))
    for _ in range(4):
        closed.step(lambda: F.cross_entropy(a(x), y))
        plain.zero_grad(set_to_none=set_to_none)
        F.cross_entropy(b(x), y).backward()
        plain.step()
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)


def test_groups_have_forms_and_rates_of_their_own() -> None:
    model, x, y = problem()
    groups = [
        {"params": ["0.weight"], "hyper_lr": 0.0},
        {"params": ["5.weight"], "form": "low-rank", "rank": 3},
        {"params": ["7.weight"], "form": "spatial"},
    ]
    optimizer = FOP(model, groups=groups)
    for _ in range(3):
        optimizer.step(lambda: F.cross_entropy(model(x), y))
    shapes = {name: tuple(m.shape) for name, m in optimizer.matrices.items()}
    assert shapes == {"0.weight": (6, 6), "5.weight": (10, 3), "2.weight": (4, 4), "9.weight": (6, 6)}
    assert torch.equal(optimizer.matrices["0.weight"], torch.eye(6))
    assert not torch.equal(optimizer.matrices["2.weight"], torch.eye(4))
    coverage = optimizer.coverage()
    assert {name for name, how in coverage.items() if how == "fop"} == set(shapes)
    assert coverage["7.weight"] == coverage["8.bias"] == "heavy ball: no matrix for a parameter of its shape"


def test_the_start_is_drawn_by_name_and_seed() -> None:
    model, x, y = problem()
    a, b, c = (FOP(model, form="low-rank", rank=2, sigma=0.5, seed=seed) for seed in (3, 3, 4))
    b.step(lambda: F.cross_entropy(model(x), y))
    assert all(torch.equal(a.matrices[name], m) for name, m in b.matrices.items())
    assert not any(torch.equal(c.matrices[name], m) for name, m in b.matrices.items())
    entries = FOP(nn.Linear(400, 1), form="low-rank", rank=50, sigma=0.5).matrices["weight"]
    assert entries.std().item() == pytest.approx(0.5, rel=0.03)  # of 20,000 numbers: standard error 0.5 %
    assert not a.learned  # looking at them is not a step


@each_form
@pytest.mark.parametrize("base", ["sgd", "adam"])
def test_a_saved_state_goes_on_bit_for_bit(form: str, base: str) -> None:
    model, x, y = problem()
    optimizer = FOP(model, **settings(form, base), hyper_lr=1e-2)
    for _ in range(3):
        optimizer.step(lambda: F.cross_entropy(model(x), y))
    again = copy.deepcopy(model)
    resumed = FOP(again, seed=9)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        optimizer.step(lambda: F.cross_entropy(model(x), y))
        resumed.step(lambda: F.cross_entropy(again(x), y))
    assert all(torch.equal(m, resumed.matrices[name]) for name, m in optimizer.matrices.items())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))


@each_form
def test_the_operator_is_what_preconditions(form: str) -> None:
    model, x, y = problem()
    optimizer = FOP(model, **settings(form, "sgd"), hyper_lr=0.05)
    for _ in range(3):
        optimizer.step(lambda: F.cross_entropy(model(x), y))
    g = gradients_of(model, x, y)
    direction = optimizer.direction(g)
    for name, m in optimizer.matrices.items():
        operator = optimizer.forms[name].operator(m)
        torch.testing.assert_close(matrix(operator), dense(m, FORMS[form]), **TIGHT)
        torch.testing.assert_close(direction[name], preconditioned(matrix(operator), g[name]), **TIGHT)
        torch.testing.assert_close(eigenvalues(operator), torch.linalg.eigvalsh(dense(m, FORMS[form])), **TIGHT)
