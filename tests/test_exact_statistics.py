"""Every statistic against dense autodiff in float64, on every case: exact block, K-FAC factors, tensor-normal
factors, moments."""

from __future__ import annotations

import pytest
import torch
from cases import CASES, Case
from oracles import contraction, dense_block, fisher_columns
from torch import Tensor, nn

from curvlab import curvature
from curvlab.capture.survey import survey

pytestmark = pytest.mark.usefixtures("float64")
TIGHT = 1e-10  # relative; float64 sums of a few hundred terms


def close(mine: Tensor, wanted: Tensor, tolerance: float = TIGHT) -> None:
    assert mine.shape == wanted.shape
    error, scale = (mine - wanted).abs().max().item(), wanted.abs().max().item()
    assert error <= tolerance * max(scale, 1e-12), f"{error:.3g} of {scale:.3g}"


def columns_of(case: Case, fisher_type: str) -> tuple[nn.Module, Tensor, Tensor, list[dict[str, Tensor]]]:
    model, x, y = case.build()
    return model, x, y, list(fisher_columns(model, x, y, case.likelihood, fisher_type))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("fisher_type", ["type-2", "empirical"])
def test_block_fisher_is_the_dense_block(case: Case, fisher_type: str) -> None:
    model, x, y, columns = columns_of(case, fisher_type)
    blocks = curvature.block_fisher(model, x, y, likelihood=case.likelihood, fisher_type=fisher_type)
    found = survey(model, x[:2])
    assert list(blocks) == list(found.blocks)
    for name, fisher in blocks.items():
        block = found.blocks[name]
        dense = dense_block(columns, list(block.parameters.values()))
        close(fisher, _rows_of(dense, block.layer))
        assert fisher.dtype == torch.float64


def _rows_of(dense: Tensor, layer: object) -> Tensor:
    """The dense matrix over the concatenated parameters, reordered to W̄ flattened row by row."""
    count = sum(p.numel() for p in layer.parameters.values())
    places, start = {}, 0
    for role, p in layer.parameters.items():
        places[role] = torch.arange(start, start + p.numel()).reshape(p.shape).double()
        start += p.numel()
    order = layer.matrix(places).flatten().long()
    assert sorted(order.tolist()) == list(range(count))
    return dense[order][:, order]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("fisher_type", ["type-2", "empirical"])
@pytest.mark.parametrize("statistic", ["per-example", "batch"])
def test_tensor_normal_factors_follow_eq_4_10(case: Case, fisher_type: str, statistic: str) -> None:
    model, x, y, columns = columns_of(case, fisher_type)
    factors = curvature.tensor_normal_factors(
        model, x, y, likelihood=case.likelihood, fisher_type=fisher_type, statistic=statistic
    )
    found = survey(model, x[:2])
    shapes = {p: b.layer.modes(role) for b in found.blocks.values() for role, p in b.parameters.items()}
    assert list(factors) == [name for name, _ in model.named_parameters()]
    for name, result in factors.items():
        shape = shapes[name]
        if statistic == "batch" and fisher_type == "empirical":
            used = [{name: column[name].mean(0, keepdim=True)} for column in columns]
            wanted = [contraction(used, name, shape, mode) for mode in range(len(shape))]
        else:
            # The expectation of the batch statistic is the Fisher's contraction / N.
            scale = len(x) if statistic == "batch" else 1
            wanted = [contraction(columns, name, shape, mode) / scale for mode in range(len(shape))]
        size = torch.tensor(shape).prod().item()
        c0 = (wanted[0].trace() / size) ** (1 / len(shape))
        for d, mine, g in zip(shape, result.factors, wanted, strict=True):
            close(mine, g / (c0 ** (len(shape) - 1) * size / d))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_kfac_traces_and_moments(case: Case) -> None:
    """tr A, tr G and μ, M follow from rows written out by hand; A is T·[[M, μ], [μᵀ, 1]]."""
    model, x, y = case.build()
    factors = curvature.kfac_factors(model, x, y, likelihood=case.likelihood, fisher_type="type-2")
    moments = curvature.feature_moments(model, x)
    found = survey(model, x)
    assert list(factors) == list(moments) == list(found.blocks)
    for name, block in found.blocks.items():
        layer, stats = block.layer, moments[name]
        second = stats.second_moment.reshape(layer.groups, layer.in_features, layer.in_features)
        mean = stats.mean.reshape(layer.groups, layer.in_features)
        a = factors[name].input_factor.reshape(layer.groups, layer.in_features + layer.biased, -1)
        positions = stats.count / len(x)
        assert positions == block.positions
        close(a[:, : layer.in_features, : layer.in_features], positions * second)
        if layer.biased:
            close(a[:, -1, : layer.in_features], positions * mean)
            close(a[:, -1, -1], torch.full((layer.groups,), positions))


def test_one_example_one_position_kfac_is_exact() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    x, y = torch.randn(1, 4), torch.tensor([1])
    for fisher_type in ("type-2", "empirical", "mc"):
        factors = curvature.kfac_factors(model, x, y, likelihood="categorical", fisher_type=fisher_type, seed=3)
        blocks = curvature.block_fisher(model, x, y, likelihood="categorical", fisher_type=fisher_type, seed=3)
        for name, f in factors.items():
            close(torch.kron(f.gradient_factor, f.input_factor), blocks[name])


@pytest.mark.parametrize("bias", [True, False])
def test_deep_linear_network_with_gaussian_likelihood_kfac_is_the_ggn(bias: bool) -> None:
    """The output gradients do not depend on the features there, so E[ggᵀ ⊗ āāᵀ] = G ⊗ A exactly (T = 1)."""
    model = nn.Sequential(nn.Linear(4, 3, bias=bias), nn.Linear(3, 5, bias=bias), nn.Linear(5, 2, bias=bias))
    x, y = torch.randn(6, 4), torch.randn(6, 2)
    factors = curvature.kfac_factors(model, x, y, likelihood="gaussian", fisher_type="type-2")
    columns = list(fisher_columns(model, x, y, "gaussian", "type-2"))
    found = survey(model, x)
    for name, f in factors.items():
        dense = dense_block(columns, list(found.blocks[name].parameters.values()))
        close(torch.kron(f.gradient_factor, f.input_factor), _rows_of(dense, found.blocks[name].layer))


def test_reduce_is_exact_where_the_output_is_a_mean_over_positions() -> None:
    """f(x) = mean_t W x_t + b: averaging the features loses nothing, so "reduce" is the exact GGN block (and "expand"
    is not)."""
    from cases import Mean

    model = nn.Sequential(nn.Linear(3, 2), Mean(1))
    x, y = torch.randn(5, 4, 3), torch.randn(5, 2)
    dense = dense_block(list(fisher_columns(model, x, y, "gaussian", "type-2")), ["0.weight", "0.bias"])
    layer = survey(model, x).blocks["0"].layer
    reduced = curvature.kfac_factors(model, x, y, likelihood="gaussian", fisher_type="type-2", kfac_approx="reduce")[
        "0"
    ]
    expanded = curvature.kfac_factors(model, x, y, likelihood="gaussian", fisher_type="type-2")["0"]
    close(torch.kron(reduced.gradient_factor, reduced.input_factor), _rows_of(dense, layer))
    wrong = torch.kron(expanded.gradient_factor, expanded.input_factor) - _rows_of(dense, layer)
    assert wrong.abs().max() > 0.01


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name in ("conv2d", "positions", "twice", "in-place")], ids=lambda c: c.name
)
def test_gradient_factor_is_the_mean_over_rows(case: Case) -> None:
    """G = 1/(NT) Σ ggᵀ from output gradients taken by autograd at the layers' outputs, one example at a time."""
    model, x, y = case.build()
    factors = curvature.kfac_factors(model, x, y, likelihood=case.likelihood, fisher_type="empirical")
    found = survey(model, x)
    for name, block in found.blocks.items():
        seen: list[Tensor] = []
        modules = dict.fromkeys(dict(model.named_modules())[use] for use in block.uses)

        def keep(_: nn.Module, __: object, output: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(output)
            return output.clone()

        handles = [module.register_forward_hook(keep) for module in modules]
        loss = nn.functional.cross_entropy(model(x), y, reduction="sum")
        output_gradients = torch.autograd.grad(loss, seen)
        for handle in handles:
            handle.remove()
        rows = torch.cat([block.layer.outputs(g).flatten(0, 2) for g in output_gradients])
        close(factors[name].gradient_factor, rows.mT @ rows / len(rows))


def test_forward_only_has_an_identity_gradient_side() -> None:
    model, x, y = CASES[0].build()
    factors = curvature.kfac_factors(model, x, None, likelihood="categorical", fisher_type="forward-only")
    for name, f in factors.items():
        assert torch.equal(f.gradient_factor, torch.eye(f.gradient_factor.shape[0])), name
    full = curvature.kfac_factors(model, x, y, likelihood="categorical", fisher_type="empirical")
    assert all(torch.equal(factors[n].input_factor, full[n].input_factor) for n in full)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_nothing_is_left_behind(case: Case) -> None:
    """Parameters, buffers, gradients, hooks, requires_grad and forward methods are as they were."""
    model, x, y = case.build()
    model.train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    curvature.kfac_factors(model, x, y, likelihood=case.likelihood, fisher_type="empirical")
    after = model.state_dict()
    assert all(torch.equal(after[n], t) for n, t in before.items())
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    assert all(p.grad is None for p in model.parameters())
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)
