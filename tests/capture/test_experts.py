"""Mixtures of experts: every expert is a layer with the rows that it was given, however they are routed and stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import curvlab
from curvlab import curvature

pytestmark = pytest.mark.usefixtures("float64")
N, T, D, H, E, V = 6, 5, 4, 3, 4, 9


class Listed(nn.Module):
    """Experts as modules."""

    def __init__(self, up: Tensor, down: Tensor) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.Linear(D, H, bias=False) for _ in range(E))
        self.down = nn.ModuleList(nn.Linear(H, D, bias=False) for _ in range(E))
        for e in range(E):
            self.up[e].weight.data, self.down[e].weight.data = up[e], down[e]

    def forward(self, x: Tensor, chosen: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for e in range(E):
            (rows,) = torch.where(chosen == e)
            if len(rows):
                out.index_add_(0, rows, self.down[e](torch.tanh(self.up[e](x[rows]))))
        return out


class Stacked(nn.Module):
    """Experts as two tensors, in a loop."""

    def __init__(self, up: Tensor, down: Tensor) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(up), nn.Parameter(down)

    def forward(self, x: Tensor, chosen: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for e in chosen.unique():
            (rows,) = torch.where(chosen == e)
            out.index_add_(0, rows, F.linear(torch.tanh(F.linear(x[rows], self.up[e])), self.down[e]))
        return out


class Sorted(Stacked):
    """Experts as two tensors, rows sorted by expert."""

    def forward(self, x: Tensor, chosen: Tensor) -> Tensor:
        import transformers.integrations.moe  # noqa: F401 - defines the operator

        product = torch.ops.transformers.grouped_mm_fallback
        by_expert, order = torch.sort(chosen)
        offs = torch.cumsum(torch.bincount(by_expert, minlength=E), 0).to(torch.int32)
        hidden = torch.tanh(product(x[order], self.up.mT, offs=offs))
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        return product(hidden, self.down.mT, offs=offs)[back]


class Network(nn.Module):
    """Tokens are routed by their number; no token goes to the last expert."""

    def __init__(self, make: Callable[..., nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        up, down = torch.randn(E, H, D), torch.randn(E, D, H)
        self.embed, self.head = nn.Embedding(V, D), nn.Linear(D, V)
        self.experts = make(up, down)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embed(input_ids).reshape(-1, D)
        x = x + self.experts(x, input_ids.reshape(-1) % (E - 1))
        return self.head(x.reshape(*input_ids.shape, D))


MAKES: dict[str, Any] = {"modules": Listed, "loop": Stacked, "sorted": Sorted}
NAMES = {"modules": "experts.{role}.{e}", "loop": "experts.{e}.{role}", "sorted": "experts.{e}.{role}"}


def tokens() -> Tensor:
    return torch.randint(0, V, (N, T), generator=torch.Generator().manual_seed(1))


def targets() -> Tensor:
    return torch.randint(0, V, (N, T), generator=torch.Generator().manual_seed(2))


def mask() -> Tensor:
    found = torch.ones(N, T, dtype=torch.long)
    found[0, 3:] = found[2, 1:] = 0
    return found


@pytest.mark.parametrize("kind", MAKES)
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_factors_are_of_the_rows_that_an_expert_was_given(kind: str, padded: bool) -> None:
    network, x, y = Network(MAKES[kind]).eval(), tokens(), targets()
    counted = mask().bool() if padded else torch.ones(N, T, dtype=torch.bool)
    inputs: Any = {"input_ids": x} | ({"attention_mask": mask()} if padded else {})
    y = torch.where(counted, y, -100)
    factors = curvature.kfac_factors(network, inputs, y, likelihood="categorical", fisher_type="empirical")

    # The same by hand: the hidden rows and their gradients, those of each expert.
    h = network.embed(x).reshape(-1, D).detach().requires_grad_()
    chosen, kept = x.reshape(-1) % (E - 1), counted.reshape(-1)
    up, down = Network(Stacked).experts.parameters()
    rows, outputs = {}, []
    total = torch.zeros_like(h)
    for e in range(E - 1):
        own = torch.where(chosen == e)[0]
        s = F.linear(h[own], up[e])
        r = F.linear(torch.tanh(s), down[e])
        total = total.index_add(0, own, r)
        rows[e] = own
        outputs += [s, r]
    loss = F.cross_entropy(network.head(h + total).reshape(-1, V), y.reshape(-1), reduction="sum", ignore_index=-100)
    gradients = torch.autograd.grad(loss, outputs)
    for e in range(E - 1):
        own = kept[rows[e]]
        a, g = h[rows[e]][own].detach(), gradients[2 * e][own]
        found = factors[NAMES[kind].format(role="up", e=e)]
        assert torch.allclose(found.input_factor, a.mT @ a / N, rtol=1e-11, atol=1e-13)
        assert torch.allclose(found.gradient_factor, g.mT @ g / len(g), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", MAKES)
def test_profiles_count_the_rows_and_name_the_expert_without_any(kind: str) -> None:
    network = Network(MAKES[kind]).eval()
    found = curvlab.analyze(network, (tokens(), targets()), loss="cross-entropy", fisher_type="empirical")
    seen = torch.bincount(tokens().reshape(-1) % (E - 1), minlength=E)
    for e in range(E):
        name = NAMES[kind].format(role="down", e=e)
        (line,) = [block for block in found.coverage.blocks if block.name == name]
        layer = found[name]
        assert layer.shape == (D, H)
        assert layer.parameters == D * H
        if e == E - 1:
            assert line.status == "weights-only"
            assert line.reason == "no row of the data was given to it"
        else:
            assert line.status == "analyzed"
            assert layer.moments.count == seen[e]
    assert found.coverage.parameters == sum(p.numel() for p in network.parameters())
    assert found.coverage.analyzed == found.coverage.parameters - 2 * D * H


def test_tensor_normal_factors_of_an_expert_are_those_of_its_matrix() -> None:
    network, x, y = Network(Stacked).eval(), tokens(), targets()
    settings: Any = {"loss": "cross-entropy", "fisher_type": "empirical", "dtype": "float64"}
    found = curvlab.analyze(network, (x, y), statistic="per-example", **settings)
    losses = F.cross_entropy(network(x).transpose(1, 2), y, reduction="none").sum(1)
    gradients = [torch.autograd.grad(one, network.experts.up, retain_graph=True)[0] for one in losses]
    for e in range(E - 1):
        own = torch.stack([g[e] for g in gradients])
        tnt = found[f"experts.{e}.up"].tnt
        assert tnt is not None
        assert tnt.kronecker is not None
        assert tnt.kronecker.trace == pytest.approx(float(own.square().sum()) / N, rel=1e-11)
        mean = torch.einsum("noi,npi->op", own, own) / N
        scale = tnt.modes[0].max / float(torch.linalg.eigvalsh(mean)[-1])
        assert tnt.modes[0].trace == pytest.approx(scale * float(mean.trace()), rel=1e-10)


@pytest.mark.parametrize("optimizer", [curvlab.optim.KFAC, curvlab.optim.EKFAC, curvlab.optim.TNT])
def test_experts_are_preconditioned_alike_however_they_are_stored(optimizer: Any) -> None:
    moved = {}
    for kind in ("modules", "loop"):
        network = Network(MAKES[kind])
        method = optimizer(network, likelihood="categorical", fisher_type="empirical", lr=0.1)
        for _ in range(2):
            method.step(lambda n=network: F.cross_entropy(n(tokens()).reshape(-1, V), targets().reshape(-1)))
        experts = network.experts
        if kind == "modules":
            moved[kind] = [torch.stack([one.weight for one in ones]) for ones in (experts.up, experts.down)]
        else:
            moved[kind] = [experts.up, experts.down]
    if optimizer is curvlab.optim.TNT:
        return  # its factors are of the whole tensor, with the experts as a mode
    for a, b in zip(moved["modules"], moved["loop"], strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)
