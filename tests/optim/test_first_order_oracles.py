"""AdamW and Muon beside torch.optim's, on a model and on parameters alone; Newton–Schulz beside its polynomial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.errors import CurvlabError
from curvlab.optim import KFAC, LNB, SGD, TNT, Adam, AdamW, Muon, RMSprop, Shampoo
from curvlab.optim.newton_schulz import COEFFICIENTS, newton_schulz

STEPS = 50


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 9, bias=False), nn.Tanh(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3))


def data(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.to(dtype), (x @ torch.arange(15.0, dtype=torch.float64).reshape(5, 3).sin()).argmax(1)


def trained(made: Callable[[nn.Module], list[Any]], dtype: torch.dtype) -> nn.Module:
    model = network().to(dtype)
    optimizers, (x, y) = made(model), data(dtype)
    for _ in range(STEPS):
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        for optimizer in optimizers:
            optimizer.step()
    return model


def assert_same(ours: nn.Module, theirs: nn.Module, tolerance: float) -> None:
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_adamw_is_that_of_torch(dtype: torch.dtype, tolerance: float) -> None:
    ours = trained(lambda m: [AdamW(m, lr=0.01)], dtype)
    theirs = trained(lambda m: [torch.optim.AdamW(m.parameters(), lr=0.01)], dtype)
    assert_same(ours, theirs, tolerance)


def muon_of_torch(model: nn.Module, adjust: str, nesterov: bool) -> list[Any]:
    hidden = [model.get_parameter("0.weight"), model.get_parameter("2.weight")]
    rest = [p for p in model.parameters() if all(p is not one for one in hidden)]
    return [
        torch.optim.Muon(hidden, lr=0.01, weight_decay=0.1, nesterov=nesterov, adjust_lr_fn=adjust),
        torch.optim.AdamW(rest, lr=0.01, weight_decay=0.1),
    ]


@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_trains_as_those_of_torch_for_hidden_matrices_and_the_rest(adjust: str, nesterov: bool) -> None:
    """Both compute Newton–Schulz in bfloat16 by the same products; in float64 their gradients round to the same."""
    ours = trained(lambda m: [Muon(m, lr=0.01, adjust_lr_fn=adjust, nesterov=nesterov)], torch.float64)
    assert_same(ours, trained(lambda m: muon_of_torch(m, adjust, nesterov), torch.float64), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_moves_as_those_of_torch_along_given_gradients(dtype: torch.dtype, adjust: str, nesterov: bool) -> None:
    """In a closed loop of float32 a last bit of a gradient would in time be one of bfloat16, hence given ones."""
    ours, theirs = network().to(dtype), network().to(dtype)
    mine, others = Muon(ours, lr=0.01, adjust_lr_fn=adjust, nesterov=nesterov), muon_of_torch(theirs, adjust, nesterov)
    draw = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=draw, dtype=torch.float64).to(dtype)
            q.grad = p.grad.clone()
        for optimizer in (mine, *others):
            optimizer.step()
    assert_same(ours, theirs, 1e-6)


def test_muon_knows_hidden_matrices() -> None:
    model = nn.Sequential(nn.Embedding(11, 6), nn.Conv1d(4, 6, 3), nn.LayerNorm(4), nn.Flatten(), nn.Linear(24, 3))
    covered = Muon(model).coverage()
    assert [name for name, how in covered.items() if how == "muon"] == ["1.weight"]
    assert {how for name, how in covered.items() if name != "1.weight"} == {"adamw: no hidden matrix"}


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6)])
def test_newton_schulz_is_a_polynomial_of_the_singular_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(newton_schulz(matrix, 5, torch.float64), (u * s) @ vh, rtol=1e-9, atol=1e-10)
    assert s.max() < 1.3
    assert newton_schulz(torch.zeros(shape), 5, torch.bfloat16).abs().max() == 0


# Parameters in place of a network.

ALONE = [(SGD, torch.optim.SGD, {"momentum": 0.9}), (Adam, torch.optim.Adam, {}), (AdamW, torch.optim.AdamW, {})]


@pytest.mark.parametrize(("ours", "theirs", "beside"), ALONE, ids=lambda one: getattr(one, "__name__", ""))
@pytest.mark.parametrize("form", ["tensors", "named", "groups"])
def test_parameters_alone_as_torch_takes_them(ours: Any, theirs: Any, beside: dict[str, Any], form: str) -> None:
    def given(model: nn.Module) -> Any:
        if form == "groups":
            first, *rest = model.parameters()
            return [{"params": [first], "lr": 0.003}, {"params": iter(rest)}]
        return model.parameters() if form == "tensors" else model.named_parameters()

    mine = trained(lambda m: [ours(given(m), lr=0.01)], torch.float64)
    assert_same(mine, trained(lambda m: [theirs(given(m), lr=0.01, **beside)], torch.float64), 1e-12)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, RMSprop, Shampoo])
def test_parameters_alone_are_as_good_as_their_model(kind: Any) -> None:
    alone = trained(lambda m: [kind(m.parameters(), lr=0.001)], torch.float64)
    assert_same(alone, trained(lambda m: [kind(m, lr=0.001)], torch.float64), 1e-12)


def test_muon_takes_every_matrix_of_parameters_alone() -> None:
    model = network()
    assert Muon(list(model.parameters())).coverage() == {
        **dict.fromkeys(("0", "1", "3"), "muon"),
        **dict.fromkeys(("2", "4"), "adamw: no hidden matrix"),
    }


def test_states_of_parameters_alone_are_by_their_names() -> None:
    model, twin = network(), network()
    optimizer, again = Adam(model.named_parameters()), Adam(twin.named_parameters())
    F.cross_entropy(model(data(torch.float32)[0]), data(torch.float32)[1]).backward()
    optimizer.step()
    again.load_state_dict(optimizer.state_dict())
    assert set(again.state_dict()["state"]) == {name for name, _ in model.named_parameters()}
    scheduler = torch.optim.lr_scheduler.ExponentialLR(again, 0.5)
    again.step()
    scheduler.step()
    assert again.param_groups[0]["lr"] == pytest.approx(0.0005)


@pytest.mark.parametrize("kind", [KFAC, TNT, LNB])
def test_a_method_that_looks_at_layers_says_that_it_needs_the_network(kind: Any) -> None:
    with pytest.raises(CurvlabError, match=rf"was given a generator: .*the network itself: {kind.__name__}\(model"):
        kind(network().parameters())


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ([], "no parameters"),
        (torch.ones(3), "was given a Tensor"),
        ([3], "was given a int among its parameters"),
        ([{"lr": 1.0}], "without 'params'"),
        (7, "was given a int"),
    ],
)
def test_what_are_no_parameters(params: Any, said: str) -> None:
    with pytest.raises(CurvlabError, match=said):
        SGD(params)
