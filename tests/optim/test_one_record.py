"""Optimizers and the profiler stand on one record of a batch: class axis, padding, loss scale, Fisher types, tied uses.

The oracle is dense per-example autograd, or the profiler's statistics, which are tested against it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvlab import curvature
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Categorical
from curvlab.optim import KFAC, TNT, BlockFisher, create

pytestmark = pytest.mark.usefixtures("float64")
EXACT: Any = {"fisher_type": "type-2", "lr": 0.0}


class Language(nn.Module):
    """Tokens (n, t) to scores (n, t, V), with an attention mask that hides nothing from the layers."""

    def __init__(self, vocabulary: int = 5, width: int = 4, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.head(torch.tanh(self.mix(self.embed(ids))))


def language(tied: bool = False, tokens: int = 5) -> tuple[Language, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Language(tied=tied)
    generator = torch.Generator().manual_seed(1)
    ids, labels = (torch.randint(0, 5, (6, tokens), generator=generator) for _ in range(2))
    return model, ids, labels


def summed(z: Tensor, y: Tensor) -> Tensor:
    """Mean over examples of the sum over positions."""
    return F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="sum") / len(z)


def averages(optimizer: Any, loss: Any) -> dict[str, dict[str, Tensor]]:
    optimizer.step(loss)
    found: dict[str, dict[str, Tensor]] = optimizer.averages
    return found


@pytest.mark.parametrize("tokens", [4, 5])
def test_the_classes_are_where_the_losss_gradient_sums_to_zero(tokens: int) -> None:
    """Outputs (n, T, V), with T = V too: the softmax is never taken over positions."""
    model, ids, labels = language(tokens=tokens)
    found = averages(KFAC(model, "categorical", **EXACT), lambda: summed(model(ids), labels))
    chosen = Categorical(class_axis=-1)
    wanted = curvature.kfac_factors(model, ids, labels, likelihood=chosen, fisher_type="type-2")
    for name in ("mix", "head"):
        torch.testing.assert_close(found[name]["gradient"][0], wanted[name].gradient_factor)
        torch.testing.assert_close(found[name]["input"][0], wanted[name].input_factor)


def test_segmentation_keeps_torchs_order_of_axes() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(2, 3, 1)
    x, y = torch.randn(4, 2, 3, 3), torch.randint(0, 3, (4, 3, 3))
    found = averages(KFAC(model, "categorical", **EXACT), lambda: F.cross_entropy(model(x), y, reduction="sum") / 4)
    chosen = Categorical(class_axis=1)  # three classes on 3 × 3 pixels: the targets' shape tells nothing
    (wanted,) = curvature.kfac_factors(model, x, y, likelihood=chosen, fisher_type="type-2").values()
    with pytest.raises(CurvlabError, match="as many positions as classes"):
        curvature.kfac_factors(model, x, y, likelihood="categorical")
    (state,) = found.values()
    torch.testing.assert_close(state["gradient"][0], wanted.gradient_factor)


@pytest.mark.parametrize("approx", ["expand", "reduce"])
@pytest.mark.parametrize("fisher_type", ["type-2", "empirical"])
def test_padding_counts_for_no_factor(approx: str, fisher_type: str) -> None:
    model, ids, labels = language()
    mask = torch.ones_like(ids)
    mask[0, 3:] = mask[2, 1:] = mask[4, 4:] = 0
    labels = labels.masked_fill(mask == 0, -100)

    def loss() -> Tensor:
        z = model(ids, attention_mask=mask)
        return F.cross_entropy(z.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum") / len(ids)

    optimizer = KFAC(model, "categorical", lr=0.0, fisher_type=fisher_type, kfac_approx=approx)
    found = averages(optimizer, loss)
    inputs = {"ids": ids, "attention_mask": mask}
    options: Any = {"fisher_type": fisher_type, "kfac_approx": approx, "likelihood": Categorical(class_axis=-1)}
    wanted = curvature.kfac_factors(model, inputs, labels, **options)
    for name in ("mix", "head"):
        torch.testing.assert_close(found[name]["gradient"][0], wanted[name].gradient_factor)
        torch.testing.assert_close(found[name]["input"][0], wanted[name].input_factor)


def test_labels_of_minus_100_take_no_part_where_there_is_no_mask() -> None:
    """A shifted loss: the last position has none, and neither has its Fisher matrix."""
    model, ids, _ = language()

    def loss() -> Tensor:
        z = model(ids)
        return F.cross_entropy(z[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum") / len(ids)

    found = averages(KFAC(model, "categorical", **EXACT), loss)
    shifted = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], -100)], 1)
    chosen = Categorical(class_axis=-1)
    wanted = curvature.kfac_factors(model, ids, shifted, likelihood=chosen, fisher_type="type-2")
    for name in ("mix", "head"):
        torch.testing.assert_close(found[name]["gradient"][0], wanted[name].gradient_factor)


@pytest.mark.parametrize("reduction", ["examples", "tokens", "sum"])
def test_empirical_factors_do_not_depend_on_how_the_loss_is_averaged(reduction: str) -> None:
    model, ids, labels = language()
    weight = {"examples": 1.0, "tokens": 1 / ids.shape[1], "sum": float(len(ids))}[reduction]
    optimizer = KFAC(model, "categorical", lr=0.0, fisher_type="empirical")
    found = averages(optimizer, lambda: weight * summed(model(ids), labels))
    chosen = Categorical(class_axis=-1)
    wanted = curvature.kfac_factors(model, ids, labels, likelihood=chosen, fisher_type="empirical")
    for name in ("mix", "head"):
        torch.testing.assert_close(found[name]["gradient"][0], wanted[name].gradient_factor)


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian", "bernoulli"])
@pytest.mark.parametrize("weight", [1.0, 0.1, 2.0])
def test_mvp_minimises_the_closures_own_quadratic_model(likelihood: str, weight: float) -> None:
    """Whatever multiple of the likelihood's loss the closure returns: δ = −(∇hᵀp / pᵀ(cG + λI)p) p."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    x = torch.randn(20, 4)
    y = {
        "categorical": torch.randint(0, 3, (20,)),
        "gaussian": torch.randn(20, 3),
        "bernoulli": torch.randint(0, 2, (20, 3)).double(),
    }[likelihood]
    of: Any = {
        "categorical": F.cross_entropy,
        "gaussian": lambda z, y: 0.5 * (z - y).square().sum() / len(z),
        "bernoulli": lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction="sum") / len(z),
    }[likelihood]
    damping = 0.05
    optimizer = KFAC(model, likelihood, lr=1.0, damping=damping, step_size="mvp", momentum=0.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    names, parameters = list(before), list(model.parameters())
    gradients = dict(zip(names, torch.autograd.grad(weight * of(model(x), y), parameters), strict=True))
    optimizer.step(lambda: weight * of(model(x), y))
    step = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    direction = optimizer.direction(gradients)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(before[name])
    product = curvature.ggn_product(model, x, y, direction, likelihood=likelihood)
    slope = sum((gradients[n] * direction[n]).sum() for n in names)
    curved = sum((direction[n] * (weight * product[n] + damping * direction[n])).sum() for n in names)
    for name in names:
        torch.testing.assert_close(step[name], -slope / curved * direction[name], rtol=1e-7, atol=1e-12)


def test_many_targets_tend_to_the_exact_expectation() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 4), torch.randn(8, 3), torch.randint(0, 4, (8,))
    (exact,) = averages(KFAC(model, "categorical", **EXACT), lambda: F.cross_entropy(model(x), y)).values()
    errors = []
    for samples in (1, 4000):
        optimizer = KFAC(model, "categorical", lr=0.0, mc_samples=samples)
        (found,) = averages(optimizer, lambda: F.cross_entropy(model(x), y)).values()
        errors.append((found["gradient"] - exact["gradient"]).norm() / exact["gradient"].norm())
    assert errors[1] < 0.03  # the sampling error of 32,000 targets is about 1/√32,000 = 0.006
    assert errors[1] < errors[0]


@pytest.mark.parametrize("statistic", ["batch", "per-example"])
@pytest.mark.parametrize("options", [{"fisher_type": "type-2"}, {"mc_samples": 3}, {"fisher_type": "empirical"}])
@pytest.mark.parametrize("tied", [False, True])
def test_tensor_normal_factors_in_training_are_those_of_the_profile(
    statistic: str, options: dict[str, Any], tied: bool
) -> None:
    if "mc_samples" in options and statistic == "per-example":
        options = {"fisher_type": "type-2"}
    model, ids, labels = language(tied)
    optimizer = TNT(model, "categorical", lr=0.0, statistic=statistic, **options)
    drawn = options.get("mc_samples")
    found = averages(optimizer, lambda: summed(model(ids), labels))
    assert set(found) == {name for name, _ in model.named_parameters()}
    if drawn is not None:
        return  # other numbers are drawn; the sum over passes is checked by the exact expectation
    wanted = curvature.tensor_normal_factors(
        model, ids, labels, likelihood=Categorical(class_axis=-1), statistic=statistic, **options
    )
    for name, factors in wanted.items():
        for mode, factor in enumerate(factors.factors):
            ours = found[name][str(mode)]
            torch.testing.assert_close(ours / ours.norm(), factor / factor.norm())


@pytest.mark.parametrize("fisher_type", ["type-2", "empirical"])
def test_a_tied_table_has_the_fisher_block_of_both_its_uses(fisher_type: str) -> None:
    """The dense block by autograd, and K-FAC's pair: the trace of the sum of both uses' Kronecker products."""
    model, ids, labels = language(tied=True)
    exact = averages(
        BlockFisher(model, "categorical", lr=0.0, fisher_type=fisher_type), lambda: summed(model(ids), labels)
    )
    name = next(name for name in exact if name in ("embed", "head"))
    columns = []
    for n in range(len(ids)):
        z = model(ids[n : n + 1])
        if fisher_type == "empirical":
            (g,) = torch.autograd.grad(summed(z, labels[n : n + 1]), model.head.weight)
            columns.append(g)
            continue
        p = z.detach().softmax(-1)
        for t in range(z.shape[1]):
            for k in range(z.shape[2]):
                root = p[0, t].sqrt()
                cotangent = torch.zeros_like(z)
                cotangent[0, t] = -p[0, t] * root[k]
                cotangent[0, t, k] += root[k]
                (g,) = torch.autograd.grad(z, model.head.weight, cotangent, retain_graph=True)
                columns.append(g)
    layout = [(g if name == "head" else g.T).flatten() for g in columns]
    dense = torch.stack([torch.outer(v, v) for v in layout]).sum(0) / len(ids)
    torch.testing.assert_close(exact[name]["fisher"], dense)

    each = curvature.kfac_factors(model, ids, labels, likelihood=Categorical(class_axis=-1), fisher_type=fisher_type)
    traces = [each[use].input_factor.trace() * each[use].gradient_factor.trace() for use in ("embed", "head")]
    found = averages(KFAC(model, "categorical", lr=0.0, fisher_type=fisher_type), lambda: summed(model(ids), labels))
    (state,) = (found[key] for key in found if key in ("embed", "head"))
    a, g = state["input"][0], state["gradient"][0]
    torch.testing.assert_close(a.trace() * g.trace(), sum(traces))
    # Both partial traces are those of the sum.
    head, embed = each["head"], each["embed"]
    rows = head.input_factor.trace() * head.gradient_factor + embed.gradient_factor.trace() * embed.input_factor
    if a.shape == head.input_factor.shape:
        torch.testing.assert_close(a.trace() * g, rows)
    else:
        torch.testing.assert_close(g.trace() * a, rows)


@pytest.mark.parametrize(("name", "lr"), [("kfac", 0.05), ("ekfac", 0.05), ("tnt", 0.01), ("block-fisher", 0.05)])
def test_tied_tables_are_trained_by_the_method(name: str, lr: float) -> None:
    model, ids, _ = language(tied=True)
    labels = (2 * ids + 1) % 5
    optimizer = create(name, model, likelihood="categorical", lr=lr, damping=0.3)
    losses = [optimizer.step(lambda: summed(model(ids), labels)) for _ in range(25)]
    assert losses[0] is not None
    assert losses[-1] is not None
    assert losses[-1] < 0.8 * losses[0]
    assert set(optimizer.coverage().values()) == {name}
