"""Every operation with parameters against dense autograd in float64: the gradients of every example of every parameter,
the rows that are counted, and the way that is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from example_gradients import exact_gradients, recorded_gradients
from torch import Tensor, nn

from curvlab.capture.survey import survey
from curvlab.errors import CurvlabError

pytestmark = pytest.mark.usefixtures("float64")
N, T, D, V = 3, 4, 5, 7


class Network(nn.Module):
    """Parameters of given shapes, and a function of them and the input."""

    def __init__(self, run: Callable[..., Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))
        self.first, self.last = nn.Linear(D, D), nn.Linear(D, 3)
        self.run = run
        self.place, self.order = torch.arange(T), torch.tensor([2, 0, 1, 4, 3])

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.run(self, torch.tanh(self.first(x)))))


@dataclass
class Case:
    """An operation.

    Attributes:
        run: of the network and hidden states `[n, t, d]`; returns hidden states.
        shapes: of the parameters.
        kinds: name of a block -> its kind.
        tokens: whether the network is fed tokens.
    """

    run: Callable[..., Tensor]
    shapes: dict[str, tuple[int, ...]]
    kinds: dict[str, str] = field(default_factory=dict)


def routed(m: Any, h: Tensor) -> Tensor:
    """A mixture of experts in a loop, as transformers writes it."""
    flat = h.reshape(-1, D)
    scores = torch.softmax(flat @ m.router, -1)
    chosen = scores.argmax(-1)
    out = torch.zeros_like(flat)
    for expert in range(3):
        (rows,) = torch.where(chosen == expert)
        up = F.linear(flat[rows], m.up[expert])
        out.index_add_(0, rows, F.linear(torch.tanh(up), m.down[expert]) * scores[rows, expert, None])
    return h + out.reshape(h.shape)


def grouped(m: Any, h: Tensor) -> Tensor:
    """The same, sorted by expert."""
    flat = h.reshape(-1, D)
    scores = torch.softmax(flat @ m.router, -1)
    chosen = scores.argmax(-1)
    order = torch.argsort(chosen)
    counts = torch.bincount(chosen, minlength=3)
    offs = torch.cumsum(counts, 0).to(torch.int32)
    sorted_rows = flat[order]
    up = grouped_product(sorted_rows, m.up.transpose(-2, -1), offs)
    down = grouped_product(torch.tanh(up), m.down.transpose(-2, -1), offs)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    return h + (down[back] * scores.max(-1, keepdim=True).values).reshape(h.shape)


def grouped_product(x: Tensor, weight: Tensor, offs: Tensor) -> Tensor:
    from transformers.integrations import moe

    del moe
    return torch.ops.transformers.grouped_mm_fallback(x, weight, offs=offs)


def dense_experts(m: Any, h: Tensor) -> Tensor:
    flat = h.reshape(-1, D)
    every = flat.repeat(3, 1).view(3, -1, D)
    scores = torch.softmax(flat @ m.router, -1).T
    return h + (torch.bmm(torch.tanh(torch.bmm(every, m.up)), m.down) * scores[..., None]).sum(0).reshape(h.shape)


def position_layer_norm(m: Any, h: Tensor) -> Tensor:
    return h + F.layer_norm(torch.tanh(m.table[torch.arange(T)]), (D,), m.gain, m.shift)


def relative(m: Any, h: Tensor) -> Tensor:
    """Swin's bias: rows of a table by distance, added to every example's scores."""
    distance = (torch.arange(T)[:, None] - torch.arange(T)[None, :] + T - 1).flatten()
    bias = m.table[distance].view(T, T, 1).permute(2, 0, 1)[0]
    return torch.softmax(h @ h.mT + bias, -1) @ h


def state_space(m: Any, h: Tensor) -> Tensor:
    a = -torch.exp(m.a_log.double())
    step = F.softplus(h + m.dt_bias)
    state = h.new_zeros(len(h), D)
    found = []
    for t in range(T):
        state = state * torch.exp(step[:, t] * a) + h[:, t]
        found.append(state)
    return torch.stack(found, 1) + h * m.skip


def weight_norm(m: Any, h: Tensor) -> Tensor:
    weight = m.v * (m.g / m.v.norm(dim=1, keepdim=True))
    return F.linear(h, weight, m.b)


CASES = {
    "linear": Case(lambda m, h: F.linear(h, m.w, m.b), {"w": (D, D), "b": (D,)}, {"w": "Linear"}),
    "addmm": Case(
        lambda m, h: torch.addmm(m.b, h.view(-1, D), m.w).view(len(h), T, D),
        {"w": (D, D), "b": (D,)},
        {"w": "Linear (in, out)"},
    ),
    "matmul": Case(lambda m, h: h @ m.w + m.b, {"w": (D, D), "b": (D,)}, {"w": "Linear (in, out)"}),
    "transposed": Case(lambda m, h: h @ m.w.t(), {"w": (D, D)}),
    "permuted": Case(lambda m, h: torch.matmul(h, m.w.permute(1, 0).contiguous().double()), {"w": (D, D)}),
    "from the left": Case(lambda m, h: (m.w @ h.mT).mT, {"w": (D, D)}),
    "fused": Case(lambda m, h: sum(F.linear(h, w) * (i + 1) for i, w in enumerate(m.w.chunk(3))), {"w": (3 * D, D)}),
    "sliced": Case(lambda m, h: F.linear(h, m.w[D:], m.b[D:]) + F.linear(h, m.w[:D]), {"w": (2 * D, D), "b": (2 * D,)}),
    "einsum": Case(lambda m, h: torch.einsum("btd,dhe->bthe", h, m.w).flatten(2)[..., :D], {"w": (D, 2, D)}),
    "einsum of heads": Case(
        lambda m, h: torch.einsum("bthe,hef->bthf", h[:, :, None].expand(len(h), T, 2, D), m.w).sum(2), {"w": (2, D, D)}
    ),
    "two axes": Case(lambda m, h: torch.einsum("bthe,hed->btd", torch.stack([h, h * h], 2), m.w), {"w": (2, D, D)}),
    "baddbmm": Case(
        lambda m, h: torch.baddbmm(m.b, h.reshape(1, -1, D).expand(2, -1, -1), m.w).sum(0).reshape(h.shape),
        {"w": (2, D, D), "b": (2, 1, D)},
    ),
    "conv1d": Case(lambda m, h: F.conv1d(h.mT, m.w, m.b, padding=1).mT, {"w": (D, D, 3), "b": (D,)}, {"w": "Conv1d"}),
    "depthwise": Case(lambda m, h: F.conv1d(h.mT, m.w, None, padding="same", groups=D).mT, {"w": (D, 1, 3)}),
    "transposed convolution": Case(
        lambda m, h: F.conv_transpose1d(h.mT, m.w, m.b, stride=1, padding=1).mT, {"w": (D, D, 3), "b": (D,)}
    ),
    "layer norm": Case(lambda m, h: F.layer_norm(h, (D,), m.w, m.b), {"w": (D,), "b": (D,)}, {"w": "LayerNorm"}),
    "rms norm": Case(lambda m, h: F.rms_norm(h, (D,), m.w), {"w": (D,)}, {"w": "RMSNorm"}),
    "gemma norm": Case(lambda m, h: F.rms_norm(h, (D,)) * (1.0 + m.w.double()), {"w": (D,)}),
    "scale": Case(lambda m, h: h * m.w + m.b, {"w": (D,), "b": (D,)}, {"w": "Parameter (scale)"}),
    "mixed with the last": Case(
        lambda m, h: h * m.w + F.pad(h, (0, 0, 1, 0))[:, :T] * (1 - m.w), {"w": (D,)}, {"w": "Parameter (scale)"}
    ),
    "layer scale": Case(lambda m, h: h * m.w.unsqueeze(0).unsqueeze(0), {"w": (D,)}),
    "quotient": Case(lambda m, h: h / m.w, {"w": (D,)}),
    "power": Case(lambda m, h: (h * h + 1) ** m.w, {"w": (D,)}),
    "where": Case(lambda m, h: torch.where(h > 0, h, m.w), {"w": (D,)}),
    "positions": Case(lambda m, h: h + m.w[:T], {"w": (T + 2, D)}),
    "positions of an embedding": Case(lambda m, h: h + F.embedding(torch.arange(T)[None], m.w), {"w": (T + 2, D)}),
    "scaled positions": Case(lambda m, h: h + 2.0 * F.embedding(torch.arange(T), m.w), {"w": (T + 2, D)}),
    "positions with a norm": Case(position_layer_norm, {"table": (T + 1, D), "gain": (D,), "shift": (D,)}),
    "relative positions": Case(relative, {"table": (2 * T - 1, 1)}),
    "class token": Case(
        lambda m, h: torch.cat([m.w.expand(len(h), -1, -1), h[:, 1:]], 1), {"w": (1, 1, D)}, {"w": "Parameter (bias)"}
    ),
    "experts in a loop": Case(routed, {"router": (D, 3), "up": (3, D + 1, D), "down": (3, D, D + 1)}),
    "experts in groups": Case(grouped, {"router": (D, 3), "up": (3, D + 1, D), "down": (3, D, D + 1)}),
    "experts for all": Case(dense_experts, {"router": (D, 3), "up": (3, D, D + 1), "down": (3, D + 1, D)}),
    "state space": Case(state_space, {"a_log": (D,), "dt_bias": (D,), "skip": (D,)}),
    "weight norm": Case(weight_norm, {"v": (D, D), "g": (D, 1), "b": (D,)}),
    "sequence first": Case(
        lambda m, h: (F.linear(h.transpose(0, 1), m.w) + m.b).transpose(0, 1), {"w": (D, D), "b": (D,)}
    ),
    "windows": Case(
        lambda m, h: (F.linear(h.reshape(-1, 2, D), m.w) + m.b.expand(1, 2, D)).reshape(h.shape),
        {"w": (D, D), "b": (2, D)},
    ),
    "positions from an attribute": Case(
        lambda m, h: h + F.embedding(m.place, m.w) + m.v[m.place], {"w": (6, D), "v": (6, D)}
    ),
    "constants with and without examples": Case(
        lambda m, h: h + (m.w + torch.zeros(len(h), T, D)) + torch.tanh(h * (m.w + torch.zeros(T, D))), {"w": (D,)}
    ),
    "tied to its transpose": Case(lambda m, h: torch.tanh(h @ m.w) @ m.w.t(), {"w": (D, D)}),
    "two orders of rows": Case(
        lambda m, h: F.linear(h, m.w[m.order]) + 2 * torch.tanh(F.linear(h, m.w[m.order.flip(0)])), {"w": (D, D)}
    ),
    "scaled in place": Case(lambda m, h: (h + 0).mul_(m.w), {"w": (D,)}),
    "in the type of the input": Case(lambda m, h: h * m.w.type_as(h) + m.b.to(h), {"w": (D,), "b": (D,)}),
    "bilinear": Case(lambda m, h: F.bilinear(h, h, m.w, m.b), {"w": (D, D, D), "b": (D,)}),
    "prelu": Case(lambda m, h: F.prelu(h.mT, m.w).mT, {"w": (D,)}, {"w": "PReLU"}),
}


def input_of(examples: int = N) -> Tensor:
    return torch.randn(examples, T, D, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("examples", [1, 2, N, T, D])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_gradients_of_every_example(case: Case, examples: int) -> None:
    torch.manual_seed(0)
    model, x = Network(case.run, case.shapes).eval(), input_of(examples)
    found = survey(model, input_of(3))
    assert not found.refused
    seen, expected = recorded_gradients(model, x, found), exact_gradients(model, x)
    for name, exact in expected.items():
        scale = exact.abs().max()
        assert scale > 1e-8, name
        assert (seen[name] - exact).abs().max() <= 1e-11 * scale, name
    for name, kind in case.kinds.items():
        assert found.blocks[name].layer.kind == kind


class Positions(nn.Module):
    """Positions as a table, a slice and a bias by distance, a class token, and a fused weight."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.table = nn.Embedding(V, D), nn.Embedding(16, D)
        self.token, self.learned = nn.Parameter(torch.randn(1, 1, D)), nn.Parameter(torch.randn(1, 16, D))
        self.distance, self.fused = nn.Parameter(torch.randn(31)), nn.Parameter(torch.randn(3 * D, D))
        self.norm, self.last = nn.LayerNorm(D), nn.Linear(D, V)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        h = self.words(x) + self.norm(self.table(torch.arange(length)[None])) + self.learned[:, :length]
        h = torch.cat([self.token.expand(len(x), -1, -1), h], 1)
        q, k, v = (h @ self.fused.t()).chunk(3, -1)
        place = torch.arange(length + 1)
        scores = q @ k.mT + self.distance[place[:, None] - place + 15]
        return self.last(torch.softmax(scores, -1) @ v)


@pytest.mark.parametrize("shape", [(3, 4), (4, 4), (1, 4), (5, 5), (1, 6), (6, 3)])
@pytest.mark.parametrize("first", [(2, 4), (1, 5)])
def test_batches_of_any_size_and_length_are_read_as_the_first_was(
    shape: tuple[int, int], first: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    model = Positions().eval()
    found = survey(model, torch.randint(0, V, first))
    assert not found.refused
    x = torch.randint(0, V, shape)
    seen, expected = recorded_gradients(model, x, found), exact_gradients(model, x)
    for name, exact in expected.items():
        assert (seen[name] - exact).abs().max() <= 1e-11 * exact.abs().max(), name
    assert all(block.layer.road is None for name, block in found.blocks.items() if name != "distance")


def test_a_use_that_the_first_look_has_not_seen_is_an_error() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.last = nn.Parameter(torch.randn(D, D)), nn.Linear(D, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(x @ self.weight)
            return self.last(h @ self.weight[0].diag() if x.shape[1] > T else h)

    model = Sometimes().eval()
    found = survey(model, torch.randn(2, T, D))
    with pytest.raises(CurvlabError, match="another way in this batch"):
        recorded_gradients(model, torch.randn(2, T + 1, D), found)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_use_that_cannot_be_seen_is_told_in_every_type(dtype: torch.dtype) -> None:
    def run(m: Any, h: Tensor) -> Tensor:
        h = h.clone()
        h[:, 0].add_(m.b)
        return h + m.b

    torch.manual_seed(0)
    found = survey(Network(run, {"b": (D,)}).to(dtype).eval(), input_of().to(dtype))
    assert "differ from its gradient" in found.refused["b"]


def test_a_square_table_that_is_tied_to_a_layer_is_two_uses() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.last = nn.Embedding(D, D), nn.Linear(D, D, bias=False)
            self.last.weight = self.words.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.tanh(self.words(x)))

    torch.manual_seed(0)
    model, x = Tied().eval(), torch.randint(0, D, (N, T))
    found = survey(model, x)
    assert {name: block.tied for name, block in found.blocks.items()} == {"words": ["last"], "last": ["words"]}
    seen, expected = recorded_gradients(model, x, found), exact_gradients(model, x)
    assert (seen["words.weight"] - expected["words.weight"]).abs().max() < 1e-12
