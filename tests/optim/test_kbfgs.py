"""K-BFGS against its pseudo-code written out densely in float64 (ren Alg. 4, 9), and what the methods share."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
import torch
from optim.kbfgs_pseudocode import BETA, LAM, LR, Pseudocode, seen
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab.errors import CurvlabError
from curvlab.optim import KBFGS, KBFGS20, KBFGSL, KBFGSL20, create
from curvlab.optim.kbfgs.quasi_newton import KroneckerQuasiNewton

pytestmark = pytest.mark.usefixtures("float64")
NAMES = ("kbfgs-20", "kbfgsl-20", "kbfgs", "kbfgsl")


def mlp() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 3)),
        torch.randn(20, 4),
        torch.randint(0, 3, (20,)),
    )


def cnn() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.Conv2d(3, 2, 2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    return model, torch.randn(10, 2, 6, 6), torch.randint(0, 3, (10,))


NETWORKS = {"mlp": mlp, "cnn": cnn}


def made(name: str, model: nn.Module, **settings: Any) -> KroneckerQuasiNewton:
    optimizer = create(name, model, **{"lr": LR, "damping": LAM, **settings})
    assert isinstance(optimizer, KroneckerQuasiNewton)
    return optimizer


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", NAMES)
def test_steps_are_those_of_the_pseudo_code(name: str, network: str) -> None:
    model, x, y = NETWORKS[network]()
    alone, _, _ = NETWORKS[network]()
    limited = {"pairs": 3} if "l" in name else {}
    optimizer, dense = made(name, model, **limited), Pseudocode(alone, name.endswith("20"), limited.get("pairs"))
    for _ in range(6):
        optimizer.step(lambda: F.cross_entropy(model(x), y))
        dense.step(x, y)
    wanted = dict(alone.named_parameters())
    for key, p in model.named_parameters():
        torch.testing.assert_close(p, wanted[key], rtol=1e-8, atol=1e-10)
    for key, b in model.named_buffers():
        torch.testing.assert_close(b, dict(alone.named_buffers())[key], rtol=1e-8, atol=1e-10)
    counted = optimizer.counters()
    assert counted["pairs"] == 6 * len(dense.layers)
    assert counted["skipped"] == counted["non_finite"] == counted["input_skipped"] == 0


@pytest.mark.parametrize("name", ["kbfgsl-20", "kbfgsl"])
def test_the_inverses_satisfy_their_secant_conditions(name: str) -> None:
    """H_G⁺ỹ = s̃ of the newest pair, and H_A⁺(A + λ_A I)s = s."""
    model, x, y = cnn()
    optimizer = made(name, model)
    for _ in range(4):
        before = {key: state["input"].clone() for key, state in optimizer.inverses.states.items()}
        optimizer.step(lambda: F.cross_entropy(model(x), y))
    assert before
    for unit in optimizer.blocks:
        state = optimizer.inverses.states[unit.name]
        # A matrix with one column and one input: H_G v H_A for v ∈ R^o is v's image where H_A is taken away.
        column = state["changes"][:, -1, :, None].expand(-1, -1, state["input"].shape[1])
        image = optimizer.inverses.product(unit, column) @ torch.linalg.inv(state["input"])
        torch.testing.assert_close(image[..., 0], state["steps"][:, -1], rtol=1e-7, atol=1e-9)
    _, shown = seen(model, x, y)
    first = next(iter(optimizer.blocks)).name  # its inputs are the data's own, before and after
    a = shown[first][0]
    moment, mean = torch.einsum("nti,ntj->ij", a, a) / len(a), a.mean((0, 1))
    positions = 1 if name.endswith("20") else a.shape[1]
    s = before[first][0] @ mean
    after = optimizer.inverses.states[first]["input"][0]
    torch.testing.assert_close(after @ (moment @ s + (LAM * positions) ** 0.5 * s), s, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("old", [True, False])
def test_enough_pairs_are_the_whole_matrix(old: bool) -> None:
    (model, x, y), (other, _, _) = cnn(), cnn()
    full, limited = made("kbfgs-20" if old else "kbfgs", model), made("kbfgsl-20" if old else "kbfgsl", other)
    for _ in range(12):
        full.step(lambda: F.cross_entropy(model(x), y))
        limited.step(lambda: F.cross_entropy(other(x), y))
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


def test_without_both_improvements_it_is_chapter_2() -> None:
    """Table 3.8: on layers of one position the two differ in the two improvements and in the gradient's average."""
    (model, x, y), (other, _, _) = mlp(), mlp()
    new = KBFGS(model, lr=LR, damping=LAM, pair_damping="double", moment="averaged")
    old = KBFGS20(other, lr=LR / (1 - BETA), damping=LAM)
    for _ in range(8):
        new.step(lambda: F.cross_entropy(model(x), y))
        old.step(lambda: F.cross_entropy(other(x), y))
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", [KBFGSL, KBFGSL20])
def test_exact_inverses_are_inverses(kind: type[KroneckerQuasiNewton]) -> None:
    """Alg. 10, line 12: of the batch's A; Alg. 5, line 23: of the averaged A."""
    model, x, y = mlp()
    optimizer: Any = kind(model, lr=LR, damping=LAM, exact=True)
    moments = []
    for _ in range(3):
        moments.append(seen(model, x, y)[1]["3"][0])
        optimizer.step(lambda: F.cross_entropy(model(x), y))
    wanted = None
    for a in moments:
        moment = torch.einsum("nti,ntj->ij", a, a) / len(a)
        averaged = kind is KBFGSL20 and wanted is not None
        wanted = BETA * wanted + (1 - BETA) * moment if averaged else moment
    assert wanted is not None
    found = optimizer.inverses.states["3"]["input"][0]
    torch.testing.assert_close(torch.linalg.inv(found), wanted + LAM**0.5 * torch.eye(len(wanted)))


def test_rounding_in_front_of_a_batch_norm_is_no_curvature() -> None:
    """A shift of h changes nothing there: H_G stays I/λ_G, in float32 too."""
    for dtype in (torch.float64, torch.float32):
        model, x, y = cnn()
        model, x = model.to(dtype), x.to(dtype)
        optimizer = made("kbfgs", model)
        for _ in range(5):
            optimizer.step(lambda: F.cross_entropy(model(x), y))  # noqa: B023
        state = optimizer.inverses.states["0"]
        assert not state["y"].any()
        torch.testing.assert_close(state["output"][0], torch.eye(3, dtype=dtype) * (9 / LAM) ** 0.5)
        assert optimizer.inverses.states["3"]["y"].any()


def test_the_dampings_are_rebalanced_by_the_number_of_positions() -> None:
    model, x, y = cnn()
    optimizer = made("kbfgs", model, lr=0.0)
    optimizer.warm_start([lambda: F.cross_entropy(model(x), y)])
    _, shown = seen(model, x, y)
    for name, state in optimizer.inverses.states.items():
        a, h, _ = shown[name]
        positions = a.shape[1]
        torch.testing.assert_close(state["output"][0], torch.eye(h.shape[2]) * positions**0.5 / LAM**0.5)
        moment = torch.einsum("nti,ntj->ij", a, a) / len(a)
        damped = moment + (LAM * positions) ** 0.5 * torch.eye(len(moment))
        torch.testing.assert_close(torch.linalg.inv(state["input"][0]), damped, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_warm_start_is_the_mean_of_a_over_the_pass(name: str) -> None:
    model, x, y = cnn()
    model.append(nn.Dropout(0.5))
    optimizer = made(name, model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random, calls = torch.get_rng_state(), count()
    parts = (slice(0, 3), slice(3, 10))
    model.eval()
    optimizer.warm_start([lambda p=p: (next(calls), F.cross_entropy(model(x[p]), y[p]))[1] for p in parts])
    assert next(calls) == len(parts)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert bool(optimizer.averages) == name.endswith("20")
    _, shown = seen(model, x, y)
    for key, state in optimizer.inverses.states.items():
        a = shown[key][0]
        moment = torch.einsum("nti,ntj->ij", a, a) / len(a)
        balance = 1 if name.endswith("20") else a.shape[1]
        damped = moment + (LAM * balance) ** 0.5 * torch.eye(len(moment))
        torch.testing.assert_close(torch.linalg.inv(state["input"][0]), damped, rtol=1e-7, atol=1e-9)


def test_table_vocabularies_and_tied_layers_have_no_inverses() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.hidden, self.out = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
            self.out.weight = self.embedding.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.tanh(self.hidden(self.embedding(x)))).mean(1)

    torch.manual_seed(0)
    model, x, y = Tied(), torch.randint(0, 7, (9, 5)), torch.randint(0, 7, (9,))
    optimizer = KBFGS(model, lr=0.05, damping=0.5)
    losses = [optimizer.step(lambda: F.cross_entropy(model(x), y)) for _ in range(30)]
    assert [unit.name for unit in optimizer.blocks] == ["hidden"]
    assert "lr/damping" in optimizer.coverage()["embedding.weight"]
    assert losses[-1] is not None
    assert losses[-1] < 0.8 * losses[0]  # type: ignore[operator]


def test_a_state_of_another_recipe_is_refused() -> None:
    model, x, y = mlp()
    optimizer = KBFGSL20(model)
    optimizer.step(lambda: F.cross_entropy(model(x), y))
    with pytest.raises(CurvlabError, match="pairs 100"):
        KBFGSL20(model, pairs=7).load_state_dict(optimizer.state_dict())
    fresh = KBFGSL20(model)
    fresh.load_state_dict(optimizer.state_dict())
    with pytest.raises(CurvlabError, match="not seen the model run since"):
        fresh.direction({name: torch.ones_like(p) for name, p in model.named_parameters()})
