"""Factor files of networks over sequences: tables, operations, experts, and with no network at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sequence_models import folder, network

import curvlab
from curvlab.errors import CheckpointError


@pytest.mark.parametrize("name", ["GPT-2", "Mixtral", "Mamba", "BART"])
@pytest.mark.parametrize("kfac_approx", ["expand", "reduce"])
def test_an_analysis_continues_from_its_file(name: str, kfac_approx: str, tmp_path: Path) -> None:
    place = folder(network(name), tmp_path / "model")
    ids = torch.randint(4, 60, (5, 9))
    options = {"analyses": ("moments", "kfac"), "fisher_type": "empirical", "kfac_approx": kfac_approx}
    made = curvlab.analyze(place, {"input_ids": ids}, factors=str(tmp_path / "f"), **options)
    found = curvlab.analyze(place, factors_from=str(tmp_path / "f"), analyses=("moments", "kfac"))
    with_factors = [layer for layer in made.layers if "factors" in layer.results]
    assert len(with_factors) > 5
    assert made.coverage.analyzed / made.coverage.parameters > 0.98
    for before in with_factors:
        after = found[before.name]
        if before.moments is not None:
            assert after.moments.rank == before.moments.rank
            assert after.moments.eigenvalues["max"] == pytest.approx(before.moments.eigenvalues["max"], rel=1e-9)
        assert (after.kfac is None) == (before.kfac is None)
        if before.kfac is not None and before.kfac.kronecker is not None:
            assert after.kfac.kronecker.trace == pytest.approx(before.kfac.kronecker.trace, rel=1e-9)
            assert after.kfac.kronecker.rank == before.kfac.kronecker.rank
    factors = curvlab.load_factors(tmp_path / "f")
    parameters = dict(network(name).named_parameters())
    covered = {key for key in factors.fisher_diagonal if factors.fisher_diagonal[key].shape == parameters[key].shape}
    assert len(covered) > 0.9 * len(parameters)


def test_the_factors_of_another_network_are_refused(tmp_path: Path) -> None:
    ids = torch.randint(4, 60, (5, 9))
    curvlab.analyze(network("GPT-2"), {"input_ids": ids}, factors=str(tmp_path / "f"), analyses=("kfac",))
    with pytest.raises(CheckpointError, match="do not fit the model"):
        curvlab.analyze(network("Llama"), factors_from=str(tmp_path / "f"))


@pytest.mark.parametrize("name", ["GPT-2", "Llama"])
def test_the_fishers_diagonal_is_that_of_autograd(name: str, tmp_path: Path) -> None:
    """E[D²] with the next tokens as labels, one sequence at a time."""
    model = network(name).double()
    ids = torch.randint(4, 60, (4, 7))
    curvlab.analyze(
        model,
        {"input_ids": ids},
        factors=str(tmp_path / "f"),
        analyses=("factors",),
        fisher_type="empirical",
        dtype="float64",
    )
    wanted = {key: torch.zeros_like(p) for key, p in model.named_parameters()}
    for one in ids:
        logits = model(input_ids=one[None]).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], one[1:], reduction="sum")
        gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        for key, gradient in zip(wanted, gradients, strict=True):
            wanted[key] += 0 if gradient is None else gradient.square() / len(ids)
    found = curvlab.load_factors(tmp_path / "f").fisher_diagonal
    assert len(found) > 0.9 * len(wanted)
    for key in found:
        torch.testing.assert_close(found[key], wanted[key].double(), rtol=1e-8, atol=1e-12)
