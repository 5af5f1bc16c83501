"""Loss and metric of the data beside torch's and numpy's, over batches of any size, and the warning at chance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import curvlab
from curvlab.reports.analysis import analysis_document
from curvlab.reports.writers.markdown import to_markdown


def analysed(model: nn.Module, data: Any, **options: Any) -> curvlab.Analysis:
    return curvlab.analyze(model, data, analyses=("moments", "kfac"), **options)


def network(inputs: int, outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("batch_size", [7, 60])
@pytest.mark.parametrize("fisher_type", ["mc", "forward-only"])
def test_classes_have_cross_entropy_and_accuracy(batch_size: int, fisher_type: str) -> None:
    model, x = network(5, 4), normal(60, 5)
    with torch.no_grad():
        y = model(x).argmax(1)
    y[:20] = (y[:20] + 1) % 4
    found = analysed(model, (x, y), batch_size=batch_size, fisher_type=fisher_type)
    with torch.no_grad():
        z = model(x).double()
    assert found.data["loss"] == pytest.approx(F.cross_entropy(z, y).item(), rel=1e-6)  # z is of float32
    assert found.data["accuracy"] == pytest.approx((z.argmax(1) == y).double().mean().item())
    assert found.data["accuracy"] == pytest.approx(40 / 60)
    share = np.bincount(y.numpy()).max() / 60
    assert found.data["chance"] == {"loss": pytest.approx(math.log(4)), "accuracy": pytest.approx(share)}
    assert found.to_dict()["data"]["accuracy"] == found.data["accuracy"]
    assert "perplexity" not in found.data


def test_it_is_a_line_of_the_report() -> None:
    model, x = network(5, 4), normal(60, 5)
    with torch.no_grad():
        y = model(x).argmax(1)
        model[2].weight *= 20
        model[2].bias *= 20
    found = analysed(model, (x, y))
    assert found.data["accuracy"] == 1.0
    assert not any("chance" in note for note in found.notes)
    text = to_markdown(analysis_document(found))
    assert f"loss {found.data['loss']:.3g}"[:8] in text
    assert "accuracy 1 on this data" in text


def test_positions_that_do_not_count_are_left_out() -> None:
    model, x = nn.Conv1d(3, 4, 1), normal(10, 3, 6)
    y = torch.randint(0, 4, (10, 6), generator=torch.Generator().manual_seed(2))
    y[:, 4:] = -100
    found = analysed(model, (x, y), batch_size=3)
    with torch.no_grad():
        z = model(x).double()
    assert found.data["loss"] == pytest.approx(F.cross_entropy(z, y).item(), rel=1e-6)
    assert found.data["accuracy"] == pytest.approx((z.argmax(1) == y)[:, :4].double().mean().item())


class Words(nn.Module):
    """A language model with keyword inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(11, 6), nn.Linear(6, 11)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.head(self.table(input_ids))


def test_language_models_have_a_perplexity_over_tokens_that_count() -> None:
    model, generator = Words(), torch.Generator().manual_seed(3)
    tokens, y = (torch.randint(0, 11, (8, 5), generator=generator) for _ in range(2))
    mask = torch.ones(8, 5, dtype=torch.long)
    mask[:3, 3:] = 0
    inputs = {"input_ids": tokens, "attention_mask": mask}
    found = analysed(model, (inputs, y), loss="cross-entropy", batch_size=3)
    with torch.no_grad():
        z = model(tokens).double()[mask.bool()]
    loss = F.cross_entropy(z, y[mask.bool()]).item()
    assert found.data["loss"] == pytest.approx(loss, rel=1e-6)
    assert found.data["perplexity"] == pytest.approx(math.exp(loss), rel=1e-6)
    (note,) = [note for note in found.notes if "chance" in note]  # random weights
    assert "tokens" in note


def test_outputs_of_0_and_1_have_an_accuracy() -> None:
    model, x = network(5, 3), normal(40, 5)
    y = (normal(40, 3, seed=4) > 0.8).float()
    found = analysed(model, (x, y), loss="bce", batch_size=9)
    with torch.no_grad():
        z = model(x).double()
    loss = F.binary_cross_entropy_with_logits(z, y.double(), reduction="sum").item() / 40
    assert found.data["loss"] == pytest.approx(loss, rel=1e-6)
    assert found.data["accuracy"] == pytest.approx(((z > 0) == (y > 0)).double().mean().item())
    share = y.mean(0).numpy()
    assert found.data["chance"] == {
        "loss": pytest.approx(3 * math.log(2)),
        "accuracy": pytest.approx(np.maximum(share, 1 - share).mean()),
    }
    soft = analysed(model, (x, y * 0.9 + 0.05), loss="bce")
    assert "accuracy" not in soft.data


def test_real_numbers_have_r2() -> None:
    model, x = network(5, 3), normal(40, 5)
    with torch.no_grad():
        y = model(x) + 0.1 * normal(40, 3, seed=6)
        z = model(x).double()
    found = analysed(model, (x, y), loss="mse", batch_size=9)
    left = (z - y).square().sum().item()
    assert found.data["loss"] == pytest.approx(left / 80, rel=1e-5)
    around = (y.double() - y.double().mean(0)).square().sum().item()
    assert found.data["r2"] == pytest.approx(1 - left / around, rel=1e-6)
    assert not any("chance" in note for note in found.notes)


@pytest.mark.parametrize("case", ["loss", "accuracy", "r2"])
def test_a_model_at_chance_is_told_so(case: str) -> None:
    model, x = network(5, 4), normal(60, 5)
    y = torch.arange(60) % 4
    if case == "accuracy":
        y = torch.zeros(60, dtype=torch.long)
        y[:5] = 1
        with torch.no_grad():
            model[2].weight.zero_()
            model[2].bias.copy_(torch.tensor([3.0, 0.0, -9.0, -9.0]))
    if case == "r2":
        with torch.no_grad():
            model[2].bias += 10
    found = analysed(model, (x, normal(60, 4, seed=9) if case == "r2" else y))
    (note,) = [note for note in found.notes if "chance" in note]
    words = {"loss": "not below 1.39", "accuracy": "the share of the commonest class", "r2": "the mean of the targets"}
    assert words[case] in note
    assert ("its loss" in note) == (case == "loss")
    assert "NO BETTER THAN CHANCE" in to_markdown(analysis_document(found))


def test_without_targets_there_is_no_line() -> None:
    found = analysed(network(5, 4), normal(60, 5), loss="cross-entropy")
    assert not {"loss", "accuracy", "chance"} & set(found.data)


def test_targets_of_another_likelihood_are_no_loss() -> None:
    found = analysed(network(5, 4), (normal(60, 5), normal(60, 2)), loss="cross-entropy", fisher_type="forward-only")
    assert "loss" not in found.data


def test_a_gate_may_ask_for_it() -> None:
    from curvlab.gates import parse

    model, x = network(5, 4), normal(60, 5)
    with torch.no_grad():
        found = analysed(model, (x, model(x).argmax(1))).to_dict()
    assert parse("data.accuracy < 0.5").check(found).holds is False
