"""Identities that hold between statistics, whatever the model: scale, splits, limits (docs/curvature.md)."""

from __future__ import annotations

import pytest
import torch
from cases import CASES, Case
from torch import Tensor, nn

from curvlab import curvature
from curvlab.errors import CurvlabError
from curvlab.likelihoods import likelihood

pytestmark = pytest.mark.usefixtures("float64")
SOME = [
    c for c in CASES if c.name in ("linear", "gaussian", "bernoulli", "conv2d-groups", "positions", "tied", "by-hand")
]


def close(mine: Tensor, wanted: Tensor, tolerance: float = 1e-10) -> None:
    assert mine.shape == wanted.shape
    assert (mine - wanted).abs().max() <= tolerance * max(wanted.abs().max().item(), 1e-12)


def batches(x: Tensor, y: Tensor, sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


@pytest.mark.parametrize("case", SOME, ids=lambda c: c.name)
@pytest.mark.parametrize("fisher_type", ["type-2", "empirical", "mc"])
@pytest.mark.parametrize("approx", ["expand", "reduce"])
def test_factors_do_not_depend_on_the_batch_split(case: Case, fisher_type: str, approx: str) -> None:
    """Pseudo-targets too: example n draws the same numbers in whatever batch it comes."""
    model, x, y = case.build()
    options = {
        "likelihood": case.likelihood,
        "fisher_type": fisher_type,
        "kfac_approx": approx,
        "mc_samples": 2,
        "seed": 5,
    }
    whole = curvature.kfac_factors(model, x, y, **options)
    split = curvature.kfac_factors(model, batches(x, y, [1, len(x) - 1]), **options)
    for name, f in whole.items():
        close(split[name].input_factor, f.input_factor)
        close(split[name].gradient_factor, f.gradient_factor)


@pytest.mark.parametrize("case", SOME, ids=lambda c: c.name)
def test_per_example_tensors_and_exact_blocks_do_not_depend_on_the_batch_split(case: Case) -> None:
    model, x, y = case.build()
    options = {"likelihood": case.likelihood, "fisher_type": "mc", "seed": 5}
    loader = batches(x, y, [2, len(x) - 2])
    whole = curvature.tensor_normal_factors(model, x, y, statistic="per-example", **options)
    split = curvature.tensor_normal_factors(model, loader, statistic="per-example", **options)
    for name, f in whole.items():
        for mine, wanted in zip(split[name].factors, f.factors, strict=True):
            close(mine, wanted)
    blocks, parts = curvature.block_fisher(model, x, y, **options), curvature.block_fisher(model, loader, **options)
    for name, block in blocks.items():
        close(parts[name], block)


def test_feature_moments_of_a_loader_of_bare_inputs() -> None:
    model, x, _ = CASES[0].build()
    whole, split = curvature.feature_moments(model, x), curvature.feature_moments(model, list(x.split([2, 2, 1])))
    for name, m in whole.items():
        assert split[name].count == m.count == len(x)
        close(split[name].second_moment, m.second_moment)
    close(whole["0"].mean, x.mean(0))
    close(whole["0"].second_moment, x.T @ x / len(x))


@pytest.mark.parametrize("name", ["categorical", "bernoulli", "gaussian"])
def test_monte_carlo_factors_tend_to_the_exact_ones(name: str) -> None:
    """E over pseudo-targets = type-2: the error falls as 1/√draws. Bound: 3 standard errors of 25,000 draws."""
    model, x, y = next(c for c in CASES if c.likelihood == name).build()
    exact = curvature.kfac_factors(model, x, y, likelihood=name, fisher_type="type-2")
    again = x.repeat(8, *(1 for _ in x.shape[1:]))  # the same 5 examples, 8 draws for each in one pass
    few, many = (
        curvature.kfac_factors(model, again, likelihood=name, fisher_type="mc", mc_samples=passes, seed=1)
        for passes in (6, 625)
    )

    def error(approximate: dict[str, curvature.KroneckerFactors]) -> float:
        parts = [
            (approximate[n].gradient_factor - f.gradient_factor).norm() / f.gradient_factor.norm()
            for n, f in exact.items()
        ]
        return float(torch.stack(parts).mean())

    assert error(many) < 0.03  # 5 examples × 5000 draws: relative standard error about 0.01
    assert error(few) > 2 * error(many)  # and it is sampling error: 100 times the draws, a tenth of it on average


@pytest.mark.parametrize("name", ["categorical", "bernoulli", "gaussian"])
def test_likelihoods_against_autograd(name: str) -> None:
    """Residual, Hessian root and Hessian product from the loss alone; the loss is a mean over examples of sums over
    outputs."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 2, z.shape if name == "bernoulli" else (4, 2), generator=generator)
    y = y.double() if name == "bernoulli" else torch.randn(z.shape, dtype=torch.float64) if name == "gaussian" else y
    chosen = likelihood(name)
    leaf = z.clone().requires_grad_()
    gradient = torch.autograd.grad(chosen.loss(leaf, y) * len(z), leaf)[0]
    close(chosen.residual(z, y), gradient)
    hessian = torch.autograd.functional.hessian(lambda v: chosen.loss(v, y) * len(z), z).reshape(z.numel(), z.numel())
    roots = torch.stack([c.flatten(1) for c in chosen.hessian_root(z)])
    for n in range(len(z)):
        place = slice(n * 6, n * 6 + 6)
        close(torch.einsum("ka,kb->ab", roots[:, n], roots[:, n]), hessian[place, place])
    v = torch.randn(z.shape, dtype=torch.float64)
    close(chosen.hessian_product(z, v).flatten(), hessian @ v.flatten())


@pytest.mark.parametrize("name", ["categorical", "bernoulli", "gaussian"])
def test_samples_follow_the_model(name: str) -> None:
    """Mean of p − y over many draws is zero, and its second moment the Hessian, within 5 standard errors."""
    z = torch.tensor([[0.3, -1.0, 0.8]], dtype=torch.float64).expand(40000, -1)
    chosen = likelihood(name)
    (cotangent,) = chosen.cotangents(z, None, "mc", 1, torch.Generator().manual_seed(0))
    hessian = chosen.hessian_product(z[:3], torch.eye(3, dtype=torch.float64))
    spread = cotangent.square().mean(0).sqrt() / 40000**0.5
    assert (cotangent.mean(0).abs() < 5 * spread).all()
    second = cotangent.T @ cotangent / len(cotangent)
    assert (second - hessian).abs().max() < 5 * 2 / 40000**0.5


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name in ("linear", "conv2d", "bernoulli", "gaussian")], ids=lambda c: c.name
)
def test_ggn_product_is_the_dense_ggn(case: Case) -> None:
    from oracles import dense_block, fisher_columns

    model, x, y = case.build()
    names = [n for n, _ in model.named_parameters()]
    dense = dense_block(list(fisher_columns(model, x, y, case.likelihood, "type-2")), names)
    vector = {n: torch.randn_like(p) for n, p in model.named_parameters()}
    product = curvature.ggn_product(model, x, y, vector, likelihood=case.likelihood)
    flat = torch.cat([vector[n].flatten() for n in names])
    close(torch.cat([product[n].flatten() for n in names]), dense @ flat)


def test_sum_loss_over_n_is_the_mean_loss() -> None:
    """Doubling the data by repeating it changes no factor: they are means over examples."""
    model, x, y = CASES[0].build()
    once = curvature.kfac_factors(model, x, y, likelihood="categorical", fisher_type="type-2")
    twice = curvature.kfac_factors(model, x.repeat(2, 1), y.repeat(2), likelihood="categorical", fisher_type="type-2")
    for name, f in once.items():
        close(twice[name].input_factor, f.input_factor)
        close(twice[name].gradient_factor, f.gradient_factor)


def test_bias_tensor_factor_is_its_exact_block() -> None:
    """At k = 1 the tensor-normal model is the exact block."""
    model, x, y = CASES[0].build()
    options = {"likelihood": "categorical", "fisher_type": "type-2"}
    tn = curvature.tensor_normal_factors(model, x, y, statistic="per-example", **options)
    blocks = curvature.block_fisher(model, x, y, **options)
    for name, width in (("0", 4), ("2", 3)):
        last = torch.arange(blocks[name].shape[0]).reshape(-1, width + 1)[:, -1]
        close(tn[f"{name}.bias"].factors[0], blocks[name][last][:, last])


def test_float32_products_with_float64_sums() -> None:
    """A float32 model over many batches: as exact as one float32 product, not worse with every batch."""
    model, x, y = next(c for c in CASES if c.name == "linear").build()
    x, y = torch.randn(600, 4), torch.randint(0, 2, (600,))
    exact = curvature.kfac_factors(model, x, y, likelihood="categorical", fisher_type="type-2")
    single = model.float()
    rough = curvature.kfac_factors(
        single, batches(x.float(), y, [7] * 85 + [5]), likelihood="categorical", fisher_type="type-2"
    )
    for name, f in exact.items():
        assert rough[name].input_factor.dtype == torch.float64
        close(rough[name].input_factor, f.input_factor, 1e-6)
        close(rough[name].gradient_factor, f.gradient_factor, 1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"likelihood": "poisson"}, "unknown likelihood 'poisson'"),
        ({"likelihood": "categorical", "fisher_type": "exact"}, "unknown fisher_type 'exact'"),
        ({"likelihood": "categorical", "kfac_approx": "shrink"}, "unknown kfac_approx 'shrink'"),
        ({"likelihood": "categorical", "fisher_type": "empirical", "y": None}, "needs targets"),
        (
            {"likelihood": "categorical", "fisher_type": "empirical", "y": torch.full((5,), 7)},
            "the model has 2 classes",
        ),
        ({"likelihood": "categorical", "fisher_type": "empirical", "y": torch.zeros(5)}, "integer classes"),
        ({"likelihood": "gaussian", "fisher_type": "empirical", "y": torch.zeros(5, 3)}, "do not fit outputs"),
    ],
)
def test_wrong_arguments_are_one_sentence(options: dict[str, object], words: str) -> None:
    model, x, y = CASES[0].build()
    arguments = {"y": y, **options}
    with pytest.raises(CurvlabError, match=words):
        curvature.kfac_factors(model, x, arguments.pop("y"), **arguments)


def test_a_model_without_known_layers_says_why() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 3))

        def forward(self, x: Tensor) -> Tensor:
            y = x.clone()
            y[:, 0] = self.w[0, 0]
            return y

    with pytest.raises(CurvlabError, match="__setitem__"):
        curvature.feature_moments(Odd(), torch.randn(4, 3))
