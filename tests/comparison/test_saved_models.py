"""Directions at the weights of a saved model: one pass, means over it, and nothing moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import curvlab
from curvlab.errors import CurvlabError
from curvlab.optim import create


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(30, 5).double(), torch.randint(0, 3, (30,))


def cosine(p: dict[str, Tensor], q: dict[str, Tensor], layer: str) -> float:
    a, b = (torch.cat([one[f"{layer}.{part}"].flatten() for part in ("weight", "bias")]) for one in (p, q))
    return float(a @ b / (a.norm() * b.norm()))


def test_they_are_those_of_statistics_over_the_whole_data() -> None:
    model, (x, y) = network(), data()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = {name: {"fisher_type": "empirical", "damping": 0.1} for name in ("kfac", "block-fisher")}
    found = curvlab.compare(model, ["kfac", "sgd"], data=(x, y), batch_size=10, dtype="float64", settings=settings)
    assert found.steps == 3
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())

    def closure(rows: slice) -> Tensor:
        return nn.functional.cross_entropy(model(x[rows]), y[rows])

    made = {}
    for name in ("kfac", "block-fisher"):
        made[name] = create(name, model, likelihood="categorical", **settings[name])
        made[name].warm_start([lambda k=k: closure(slice(10 * k, 10 * k + 10)) for k in range(3)])
    loss = closure(slice(0, 30))
    gradient = dict(zip(before, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    best = made["block-fisher"].direction(gradient)
    for layer in ("0", "2"):
        assert found["sgd"].cosine[layer] == [pytest.approx(cosine(gradient, best, layer), abs=1e-9)]
        want = cosine(made["kfac"].direction(gradient), best, layer)
        assert found["kfac"].cosine[layer] == [pytest.approx(want, abs=1e-9)]


def test_the_batches_do_not_matter_to_means() -> None:
    x, y = data()
    settings = {name: {"fisher_type": "empirical"} for name in ("kfac", "block-fisher")}
    names = ["kfac", "sgd", "lnb"]
    whole = curvlab.compare(network(), names, data=(x, y), batch_size=30, dtype="float64", settings=settings)
    for size in (7, 10, 29):  # also where a last batch is short
        found = curvlab.compare(network(), names, data=(x, y), batch_size=size, dtype="float64", settings=settings)
        for label in names:
            assert found[label].mean_cosine == pytest.approx(whole[label].mean_cosine, abs=1e-9), (label, size)
            assert found[label].mean_fisher == pytest.approx(whole[label].mean_fisher, abs=1e-9)
        assert found["kfac"].agreements[0].decrease == pytest.approx(whole["kfac"].agreements[0].decrease, rel=1e-9)


def test_the_callers_network_stays_as_it_is() -> None:
    model = network().train()
    x, y = data()
    nn.functional.cross_entropy(model(x), y).backward()
    gradient = model[0].weight.grad.clone()
    curvlab.compare(model, ["sgd"], data=(x, y))
    assert model.training
    assert model[0].weight.dtype == torch.float64
    torch.testing.assert_close(model[0].weight.grad, gradient, rtol=0, atol=0)


def test_a_file_that_names_its_data_needs_nothing_more() -> None:
    found = curvlab.compare("examples/digits-cnn.safetensors", ["kfac", "lnb", "fop"], samples=100)
    assert found.problem == "examples/digits-cnn.safetensors"
    assert found["kfac"].mean is not None
    assert 0.3 < found["kfac"].mean <= 1
    assert any("fop learns from its own steps" in note for note in found.notes)


@pytest.mark.parametrize("baseline", ["block-fisher", "ggn"])
def test_examples_that_do_not_count_change_no_direction(baseline: str) -> None:
    """Labels of -100: what is compared is what the other examples show."""
    x, y = data()
    ignored = torch.where(torch.arange(len(y)) % 3 == 0, -100, y)
    kept = ignored != -100
    share = float(kept.double().mean())  # means over N: λ among the examples that count is λ · share among all
    found = []
    for shown, damping in (((x, ignored), 0.1 * share), ((x[kept], y[kept]), 0.1)):
        settings: Any = {baseline: {"damping": damping}}
        if baseline == "block-fisher":
            settings[baseline]["fisher_type"] = "empirical"
        one = curvlab.compare(network(), ["sgd"], data=shown, baseline=baseline, settings=settings, dtype="float64")
        found.append(one["sgd"].mean)
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(CurvlabError, match="there is no data"):
        curvlab.compare(network(), ["kfac"])
    with pytest.raises(CurvlabError, match="a race needs data"):
        curvlab.compare(network(), ["kfac"], mode="training")
    torch.save(network().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CurvlabError, match="holds weights only"):
        curvlab.compare(str(tmp_path / "weights.pt"), ["kfac"], data=data())
    with pytest.raises(CurvlabError, match="has no targets"):
        curvlab.compare(network(), ["kfac"], data=data()[0])
