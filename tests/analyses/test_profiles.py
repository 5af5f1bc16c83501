"""Profiles of models and data as people have them: loaders that run once, position tables, NaN, budgets, ties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import curvlab
from curvlab.analyses.results import Analysis
from curvlab.errors import CommandError, CurvlabError


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def some() -> tuple[Tensor, Tensor]:
    return torch.randn(20, 6), torch.randint(0, 3, (20,))


def statuses(analysis: Analysis) -> dict[str, str]:
    return {block.name: block.status for block in analysis.coverage.blocks}


def test_a_loader_that_runs_once_loses_no_batch() -> None:
    model, (x, y) = network(), some()
    batches = DataLoader(TensorDataset(x, y), batch_size=7)
    whole, once = curvlab.analyze(model, (x, y)), curvlab.analyze(model, (batch for batch in batches))
    assert once.data["samples"] == 20
    assert once["0"].moments.condition_number.identity == pytest.approx(whole["0"].moments.condition_number.identity)


@pytest.mark.parametrize("samples", [3, 7, 9])
def test_samples_cut_a_loader(samples: int) -> None:
    model, (x, y) = network(), some()
    cut = curvlab.analyze(model, DataLoader(TensorDataset(x, y), batch_size=7), samples=samples)
    first = curvlab.analyze(model, (x[:samples], y[:samples]))
    assert cut.data["samples"] == samples
    assert cut["2"].kfac.input_factor.trace == pytest.approx(first["2"].kfac.input_factor.trace)


class Positions(nn.Module):
    """As vision transformers begin: a table of positions (1, T, C), and a norm over two axes."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.out = nn.Parameter(torch.randn(1, 2, 3)), nn.LayerNorm((2, 3)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(x.reshape(-1, 2, 3) + self.table).flatten(1))


def test_scales_and_shifts_of_several_axes_are_diagonals() -> None:
    model, data = Positions(), some()
    with torch.no_grad():
        model.norm.weight.copy_(torch.arange(1.0, 7.0).reshape(2, 3))
    for analysis in (curvlab.analyze(model, data), curvlab.analyze(model)):
        assert analysis["norm"].weights.condition_number == pytest.approx(6)
        assert analysis["norm"].weights.rank == 6
    table = curvlab.analyze(model, data)["table"].weights
    assert table.spectral_norm == pytest.approx(model.table.abs().max().item())


def test_weights_are_the_same_with_and_without_data() -> None:
    model = nn.Sequential(
        nn.Conv1d(4, 4, 3, groups=2), nn.BatchNorm1d(4), nn.ConvTranspose1d(4, 2, 2), nn.Flatten(), nn.Linear(10, 3)
    ).eval()
    with torch.no_grad():
        model[1].weight.uniform_(1, 3)
    with_data = curvlab.analyze(model, (torch.randn(9, 4, 6), torch.randint(0, 3, (9,))))
    for analysis in (curvlab.analyze(model), curvlab.analyze(model, analyses=("weights",))):
        assert [(e.name, e.weights) for e in analysis.layers] == [(e.name, e.weights) for e in with_data.layers]
        assert analysis.data is None
    with pytest.raises(CommandError, match="data is given"):
        curvlab.analyze(model, (torch.randn(9, 4, 6), torch.randint(0, 3, (9,))), analyses=("weights",))


@pytest.mark.parametrize("name", ["moments", "quantisation"])
def test_where_no_gradient_is_needed_no_loss_is(name: str) -> None:
    """One output and no targets: nothing tells the loss, and --loss would have no effect."""
    model, x = nn.Sequential(nn.Linear(6, 1)), some()[0]
    analysis = curvlab.analyze(model, x, analyses=(name,))
    assert analysis.coverage.blocks[0].status == "analyzed"
    assert not any("--loss" in note for note in analysis.notes)
    with pytest.raises(CurvlabError, match="the loss cannot be guessed"):
        curvlab.analyze(model, x, analyses=(name, "kfac"))


def test_nan_in_one_layer_is_its_own_line_and_not_the_end() -> None:
    model = network()
    with torch.no_grad():
        model[2].weight[0, 0] = math.nan
    analysis = curvlab.analyze(model, some())
    assert analysis["2"].weights.nonfinite == 1
    assert analysis["0"].moments.condition_number.identity is not None
    assert statuses(analysis) == {"0": "fallback", "2": "fallback"}
    assert all("not finite" in block.reason for block in analysis.coverage.blocks)
    assert analysis["2"].kfac is None


def test_a_layer_that_no_gradient_reaches_says_so() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).detach())

    analysis = curvlab.analyze(Frozen(), some())
    assert statuses(analysis) == {"a": "fallback", "b": "analyzed"}
    assert "no gradient reached it" in analysis.coverage.blocks[0].reason
    forward_only = curvlab.analyze(Frozen(), some(), fisher_type="forward-only")
    assert set(statuses(forward_only).values()) == {"analyzed"}


def test_shared_parameters_are_counted_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.tanh(self.b(torch.tanh(self.a(x)))))

    model = Tied()
    analysis = curvlab.analyze(model, some())
    count = sum(p.numel() for p in model.parameters())
    assert (analysis.coverage.analyzed, analysis.coverage.parameters) == (count, count)
    assert analysis.model["parameters"] == count


def test_a_model_without_parameters_has_an_empty_profile() -> None:
    analysis = curvlab.analyze(nn.Sequential(nn.ReLU()), some())
    assert (analysis.layers, analysis.coverage.parameters) == ((), 0)


def test_an_estimate_is_of_what_the_budget_leaves(empty_process: None) -> None:
    model, data = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3)), (torch.randn(9, 64), None)
    full = curvlab.estimate(model, data, loss="cross-entropy")
    small = curvlab.estimate(model, data, loss="cross-entropy", max_memory=10_000)
    assert small.memory <= 10_000 < full.memory
    assert sum(block.memory for block in small.blocks) < sum(block.memory for block in full.blocks)
    reason = next(note for note in small.notes if note.startswith("0: "))
    assert "tensor-normal factors would take" in reason
    assert "the input factor would take" in reason


def test_the_estimate_of_weights_alone_is_the_smaller_gram_matrix() -> None:
    found = curvlab.estimate(nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32)))
    assert [(b.name, b.input_size, b.output_size, b.memory) for b in found.blocks] == [
        ("0", 64, 32, 8 * 32**2),
        ("1", 1, 32, 8 * 32),
    ]
    assert found.memory == 8 * 32**2
    assert found.work == 64 * 32**2 + 32


def test_reduced_factors_name_their_own_scale() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(9, 3))
    x, y = torch.randn(12, 2, 4), torch.randint(0, 3, (12,))
    expand, reduce = (
        curvlab.analyze(model, (x, y), kfac_approx=approx, dtype="float64") for approx in ("expand", "reduce")
    )
    assert expand["0"].kfac.normalization == "A=1/N sum_nt, G=1/(NT) sum_nt"
    assert "averaged" in reduce["0"].kfac.normalization
    rows = x.double().unfold(2, 2, 1).permute(0, 2, 1, 3).flatten(2).mean(1).numpy()
    rows = np.concatenate([rows, np.ones((12, 1))], axis=1)
    assert reduce["0"].kfac.input_factor.trace == pytest.approx((rows**2).sum() / 12)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (lambda: nn.Sequential(nn.LazyLinear(3)), "lazy layers"),
        (lambda: torch.jit.trace(network(), torch.randn(2, 6)), "TorchScript"),
    ],
    ids=["lazy", "script"],
)
@pytest.mark.filterwarnings("ignore:Lazy modules", "ignore:.*torch.jit")
def test_modules_that_cannot_be_profiled_are_one_sentence(model: object, sentence: str) -> None:
    with pytest.raises(CurvlabError, match=sentence):
        curvlab.analyze(model(), some())


def test_classes_without_targets_are_a_note() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 6))
    analysis = curvlab.analyze(model, torch.randint(0, 7, (8, 5)), loss="cross-entropy")
    assert any("axis 1 of the output (examples, 5, 6)" in note for note in analysis.notes)
