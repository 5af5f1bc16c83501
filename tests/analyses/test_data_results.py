"""Moments, K-FAC and tensor-normal results of a network on data with dead pixels, against numpy; and what they cost."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

import curvlab
from curvlab.analyses.results import Analysis, LayerResult
from curvlab.reports.analysis import analysis_document
from curvlab.reports.writers.markdown import to_markdown


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(120, 20, generator=generator) * torch.logspace(0, 1, 20)
    x[:, [3, 11]] = 0.0
    return x, torch.randint(4, (120,), generator=generator)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 4))


@pytest.fixture(scope="module")
def analysis(network: nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> Analysis:
    return curvlab.analyze(network, data, loss="cross-entropy", dtype="float64")


def table(x: torch.Tensor) -> list[float]:
    """κ(M), κ(diag(Σ, 1)), κ(D^-½MD^-½), κ of the correlation matrix and a 1, of the pixels that are alive."""
    a = x[:, [j for j in range(20) if j not in (3, 11)]].double().numpy()
    ones = np.concatenate([a, np.ones((len(a), 1))], 1)
    m, one = ones.T @ ones / len(a), np.ones((1, 1))
    block = [[np.cov(a.T, bias=True), np.zeros((18, 1))], [np.zeros((1, 18)), one]]
    correlation = [[np.corrcoef(a.T), np.zeros((18, 1))], [np.zeros((1, 18)), one]]
    scaled = m / np.sqrt(np.outer(m.diagonal(), m.diagonal()))
    return [float(np.linalg.cond(k)) for k in (m, np.block(block), scaled, np.block(correlation))]


def test_dead_pixels_leave_the_table_over_the_range(
    analysis: Analysis, data: tuple[torch.Tensor, torch.Tensor]
) -> None:
    moments = analysis["0"].moments
    assert moments is not None
    assert (moments.rank, moments.size, moments.dead) == (19, 21, 2)
    assert set(asdict(moments.condition_number).values()) == {None}
    assert list(asdict(moments.condition_number_nonzero).values()) == pytest.approx([*table(data[0]), 1.0], rel=1e-8)
    assert analysis.to_dict()["layers"][0]["moments"]["condition_number_nonzero"].keys() == {
        *("identity", "centered", "diagonal", "lnb", "whitened")
    }


def test_both_tables_have_standard_errors_from_the_halves(
    analysis: Analysis, data: tuple[torch.Tensor, torch.Tensor]
) -> None:
    moments = analysis["0"].moments
    assert moments is not None
    first, second = table(data[0][::2]), table(data[0][1::2])
    errors = [abs(a - b) / 2 for a, b in zip(first, second, strict=True)]
    assert list(moments.stderr["condition_number_nonzero"].values()) == pytest.approx([*errors, 0.0], rel=1e-6)
    assert set(moments.stderr["condition_number"].values()) == {None}
    hidden = analysis["2"].moments
    assert hidden is not None
    assert hidden.stderr["condition_number"] == hidden.stderr["condition_number_nonzero"]
    assert hidden.condition_number == hidden.condition_number_nonzero


def spectra(layer: LayerResult) -> list[list[object]]:
    """Factors first, their product last."""
    assert layer.kfac is not None
    assert layer.tnt is not None
    kfac = [layer.kfac.input_factor, layer.kfac.gradient_factor, layer.kfac.kronecker]
    return [kfac, [*layer.tnt.modes, layer.tnt.kronecker]]


def test_the_product_of_factors_is_summarised_as_the_product_of_their_summaries(analysis: Analysis) -> None:
    for layer in analysis.layers:
        for *factors, both in spectra(layer):
            for name in ("size", "trace", "max", "rank", "effective_rank", "condition_number_nonzero"):
                expected = np.prod([getattr(factor, name) for factor in factors])
                assert getattr(both, name) == pytest.approx(expected, rel=1e-9), name
            singular = any(factor.condition_number is None for factor in factors)
            assert (both.condition_number is None) == singular
            assert both.stderr["trace"] is not None


@pytest.mark.parametrize(("name", "lists"), [("kfac", 2), ("tnt", 2), ("moments", 4)])
def test_eigenvalues_of_a_matrix_are_found_once(
    name: str,
    lists: int,
    network: nn.Module,
    data: tuple[torch.Tensor, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two layers, all the data and both halves: A and G; two modes; M, Σ, the correlations and D^-½MD^-½."""
    called = []
    plain = torch.linalg.eigvalsh
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda matrix: called.append(matrix.shape) or plain(matrix))
    curvlab.analyze(network, data, dtype="float64", analyses=(name,))
    assert len(called) == 3 * lists * 2


def test_a_table_without_halves_has_no_errors(network: nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = data
    alone = curvlab.analyze(network, (x[:1], y[:1]), analyses=("moments",))["0"].moments
    assert alone is not None
    assert alone.stderr == {}
    # One row: M has one eigenvalue that is not zero, Σ has none, and the bias is left.
    assert list(asdict(alone.condition_number_nonzero).values()) == pytest.approx([1.0] * 5)


class TwoExperts(nn.Module):
    """The first expert is given three positions of every example, the second two; the head all five."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.head = nn.Linear(30, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [expert(part) for expert, part in zip(self.experts, x.split([3, 2], 1), strict=True)]
        return self.head(torch.cat(parts, 1).flatten(1))


def test_experts_say_how_many_tokens_they_were_given() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 5, 6, generator=generator), torch.randint(4, (50,), generator=generator)
    found = curvlab.analyze(TwoExperts(), (x, y), analyses=("moments",))
    assert [layer.moments.tokens for layer in found.layers] == [150, 100, None]
    table = to_markdown(analysis_document(found)).split("Input features")[1].splitlines()
    column = table[2].split(" | ").index("tokens")
    cells = [line.split(" | ")[column] for line in table[4:7]]
    assert cells == ["150", "100", "–"]
