"""nn.MultiheadAttention: outputs against torch's, per-example gradients and statistics against autograd, in float64."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import curvlab_attention  # noqa: F401 - registers the adapter
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from curvlab.capture.survey import survey
from curvlab.curvature import block_fisher, feature_moments, kfac_factors, tensor_normal_factors
from curvlab.errors import UnsupportedLayer
from curvlab.layers.layer import adapt
from curvlab.plugins import load
from curvlab.testing import check_layer

N, T, S, WIDTH, HEADS = 3, 4, 5, 6, 2

OPTIONS = {
    "plain": {},
    "without bias": {"bias": False},
    "one head": {"num_heads": 1},
    "three heads": {"num_heads": 3},
    "bias for keys and values": {"add_bias_kv": True},
    "zero attention": {"add_zero_attn": True},
    "both": {"add_bias_kv": True, "add_zero_attn": True, "bias": False},
    "widths of their own": {"kdim": 5, "vdim": 7},
    "widths of their own, without bias": {"kdim": 5, "vdim": 7, "bias": False},
}
options = pytest.mark.parametrize("name", OPTIONS)
first = pytest.mark.parametrize("batch_first", [True, False], ids=["batch-first", "time-first"])


def attention(batch_first: bool = True, **given: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    made = nn.MultiheadAttention(WIDTH, **{"num_heads": HEADS, "batch_first": batch_first, **given}).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.5)
    return made


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


class Called(nn.Module):
    """An attention called as networks call it, on examples that come first."""

    def __init__(self, module: nn.MultiheadAttention, **call: Any) -> None:
        super().__init__()
        self.attention, self.call = module, call

    def forward(self, x: Tensor, memory: Tensor | None = None, values: Tensor | None = None) -> Any:
        memory = x if memory is None else memory
        inputs = [x, memory, memory if values is None else values]
        if not self.attention.batch_first:
            turned = {id(t): t.transpose(0, 1) for t in inputs}
            inputs = [turned[id(t)] for t in inputs]
        y, weights = self.attention(*inputs, **self.call)
        y = y if self.attention.batch_first else y.transpose(0, 1)
        return y if weights is None else (y, weights)


def inputs(module: nn.MultiheadAttention, cross: str) -> tuple[Tensor, ...]:
    if module.in_proj_weight is None:
        return random(N, T, WIDTH), random(N, S, 5), random(N, S, 7)
    return {
        "self": (random(N, T, WIDTH),),
        "memory": (random(N, T, WIDTH), random(N, S, WIDTH)),
        "as long": (random(N, T, WIDTH), random(N, T, WIDTH)),
        "three": (random(N, T, WIDTH), random(N, S, WIDTH), random(N, S, WIDTH)),
    }[cross]


@options
@first
@pytest.mark.parametrize("cross", ["self", "memory", "three"])
def test_attention_keeps_the_layer_contract(name: str, batch_first: bool, cross: str) -> None:
    module = attention(batch_first, **OPTIONS[name])
    check_layer(Called(module, need_weights=False), inputs(module, cross))


MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "causal": {"attn_mask": torch.ones(T, T, dtype=torch.bool).triu(1)},
    "causal with the hint": {"attn_mask": torch.ones(T, T, dtype=torch.bool).triu(1), "is_causal": True},
    "added": {"attn_mask": torch.linspace(-1, 1, T * T, dtype=torch.float64).reshape(T, T)},
    "for each head": {"attn_mask": torch.linspace(-1, 1, N * HEADS * T * T, dtype=torch.float64).reshape(-1, T, T)},
    "padding": {"key_padding_mask": torch.tensor([[False, False, True, True]] * 2 + [[False] * T])},
    "both": {
        "attn_mask": torch.ones(T, T, dtype=torch.bool).triu(1),
        "key_padding_mask": torch.tensor([[False, False, True, True]] * 2 + [[False] * T]),
    },
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("weights", [{"need_weights": False}, {}, {"average_attn_weights": False}])
@pytest.mark.parametrize("name", ["plain", "both"])
def test_masks_and_weights_are_torch_s(mask: str, weights: dict[str, bool], name: str) -> None:
    module = attention(**OPTIONS[name])
    x, call = random(N, T, WIDTH), {**MASKS[mask], **weights}
    for mine, own in zip(
        adapt(module).forward(lambda _, x, y: y, x, x, x, **call), module(x, x, x, **call), strict=True
    ):
        assert (mine is None) == (own is None)
        if own is not None:
            torch.testing.assert_close(mine, own, rtol=0, atol=1e-12)


def test_a_single_sequence_is_torch_s() -> None:
    module, x = attention(), random(T, WIDTH)
    for mine, own in zip(adapt(module).forward(lambda _, x, y: y, x, x, x), module(x, x, x), strict=True):
        torch.testing.assert_close(mine, own, rtol=0, atol=1e-12)


@pytest.mark.parametrize("need_weights", [True, False])
def test_dropout_draws_the_masks_that_torch_draws(need_weights: bool) -> None:
    module, x = attention(dropout=0.4).train(), random(N, T, WIDTH)
    torch.manual_seed(1)
    mine = adapt(module).forward(lambda _, x, y: y, x, x, x, need_weights=need_weights)[0]
    after = torch.random.get_rng_state()
    torch.manual_seed(1)
    torch.testing.assert_close(mine, module(x, x, x, need_weights=need_weights)[0], rtol=0, atol=1e-12)
    assert torch.equal(after, torch.random.get_rng_state())


def test_maps_are_named_and_grouped() -> None:
    found = survey(Called(attention()), random(N, T, WIDTH))
    assert found.refused == {}
    assert {name: (b.layer.groups, b.positions, dict(b.parameters)) for name, b in found.blocks.items()} == {
        "attention.in_proj": (
            3,
            T,
            {"weight": "attention.in_proj_weight", "bias": "attention.in_proj_bias"},
        ),
        "attention.out_proj": (
            1,
            T,
            {"weight": "attention.out_proj.weight", "bias": "attention.out_proj.bias"},
        ),
    }


def test_self_attention_shares_the_memory_of_its_features() -> None:
    layer, x = adapt(attention()).layers["in_proj"], random(N, T, WIDTH)
    assert layer.features(x).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_the_fast_path_of_encoder_layers_does_not_hide_it() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(WIDTH, HEADS, 8, batch_first=True).double().eval()
    check_layer(encoder, random(N, T, WIDTH))
    decoder = nn.TransformerDecoderLayer(WIDTH, HEADS, 8, batch_first=True).double().eval()
    check_layer(decoder, (random(N, T, WIDTH), random(N, S, WIDTH)))


def test_examples_of_different_lengths_are_refused() -> None:
    nested = torch.nested.nested_tensor([random(2, WIDTH), random(3, WIDTH)], layout=torch.jagged)
    with pytest.raises(UnsupportedLayer, match="its examples differ in their number of positions"):
        adapt(attention()).forward(lambda _, x, y: y, nested, nested, nested)


class Classifier(nn.Module):
    def __init__(self, module: nn.MultiheadAttention) -> None:
        super().__init__()
        self.attention = module
        self.head = nn.Linear(WIDTH, 3).double()

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        memory = x if memory.shape[1] == T else memory
        z: Tensor = self.head(self.attention(x, memory, memory, need_weights=False)[0].mean(1))
        return z


def rows(model: nn.Module, x: tuple[Tensor, Tensor], y: Tensor) -> list[dict[str, Tensor]]:
    parameters = dict(model.named_parameters())
    found = []
    for n in range(N):
        loss = cross_entropy(model(x[0][n : n + 1], x[1][n : n + 1]), y[n : n + 1])
        found.append(dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True)))
    return found


@pytest.mark.parametrize("length", [T, S], ids=["self", "cross"])
@pytest.mark.parametrize("bias", [True, False])
def test_block_fisher_and_tensor_normal_factors_are_those_of_autograd(length: int, bias: bool) -> None:
    model, y = Classifier(attention(bias=bias)), torch.tensor([0, 2, 1])
    x = (random(N, T, WIDTH), random(N, length, WIDTH))
    gradients = rows(model, x, y)
    blocks = block_fisher(model, x, y, likelihood="categorical", fisher_type="empirical")
    for block, weight in (("attention.in_proj", "attention.in_proj_weight"), ("attention.out_proj", None)):
        weight = weight or f"{block}.weight"
        own = weight.removesuffix("weight") + "bias"
        flat = torch.stack(
            [torch.cat([r[weight], *([r[own][:, None]] if bias else [])], dim=1).flatten() for r in gradients]
        )
        torch.testing.assert_close(blocks[block], flat.mT @ flat / N, rtol=0, atol=1e-12)
    found = tensor_normal_factors(
        model, x, y, likelihood="categorical", fisher_type="empirical", statistic="per-example"
    )
    for parameter in ("attention.in_proj_weight", "attention.out_proj.weight"):
        d = torch.stack([r[parameter] for r in gradients])
        contractions = (torch.einsum("nai,nbi->ab", d, d) / N, torch.einsum("noa,nob->ab", d, d) / N)
        c0 = (contractions[0].trace() / d[0].numel()) ** 0.5
        for factor, contraction in zip(found[parameter].factors, contractions, strict=True):
            wanted = contraction / (c0 * d[0].numel() / len(contraction))
            torch.testing.assert_close(factor, wanted, rtol=1e-10, atol=1e-14)


def test_kfac_factors_and_moments_of_self_attention_are_those_of_autograd() -> None:
    """G from the gradients at the projections of an attention whose weights are taken apart."""
    model = Classifier(attention())
    x = random(N, T, WIDTH)
    factors = kfac_factors(model, (x, x), likelihood="gaussian", fisher_type="type-2")["attention.in_proj"]
    moments = feature_moments(model, (x, x))["attention.in_proj"]
    own = model.attention
    flat = torch.cat([x.reshape(-1, WIDTH), torch.ones(N * T, 1, dtype=torch.float64)], dim=1)
    shift = torch.zeros(3, T, WIDTH, dtype=torch.float64, requires_grad=True)
    g = torch.zeros(3, WIDTH, WIDTH, dtype=torch.float64)
    for n in range(N):
        q, k, v = (
            (x[n] @ w.mT + b + shift[i]).unflatten(-1, (HEADS, -1)).transpose(0, 1)
            for i, (w, b) in enumerate(zip(own.in_proj_weight.chunk(3), own.in_proj_bias.chunk(3), strict=True))
        )
        y = ((q @ k.mT / (WIDTH / HEADS) ** 0.5).softmax(-1) @ v).transpose(0, 1).flatten(1)
        z = model.head(own.out_proj(y).mean(0))
        for out in z:
            (output_gradient,) = torch.autograd.grad(out, shift, retain_graph=True)
            g += torch.einsum("kta,ktb->kab", output_gradient, output_gradient) / (N * T)
    for i in range(3):
        torch.testing.assert_close(factors.input_factor[i], flat.mT @ flat / N, rtol=0, atol=1e-12)
        torch.testing.assert_close(moments.mean[i], x.mean((0, 1)), rtol=0, atol=1e-12)
    torch.testing.assert_close(factors.gradient_factor, g, rtol=0, atol=1e-12)


def test_entry_point_registers_the_plugin() -> None:
    plugin = {p.name: p for p in load("curvlab.layers")}["attention"]
    assert plugin.error is None
    assert plugin.module == "curvlab_attention"
    assert plugin.distribution.startswith("curvlab-attention ")


def test_readme_example_runs() -> None:
    result = doctest.testfile(str(Path(__file__).parents[1] / "README.md"), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0
