"""Published models profiled from their files, with random inputs that are labelled so."""

from __future__ import annotations

from pathlib import Path

import copies
import pytest
import torch
from real_models import real_model

import curvlab
from curvlab.analyses.results import Analysis

HERE = Path(__file__).parent


def profile(
    name: str, architecture: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, **options: object
) -> Analysis:
    monkeypatch.syspath_prepend(str(HERE))
    checkpoint = curvlab.load(real_model(name), architecture=f"architectures:{architecture}")
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return curvlab.analyze(checkpoint, x, **options)


def test_every_convolution_and_linear_layer_of_onet_has_moments_and_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = profile("onet", "ONet", (64, 3, 48, 48), monkeypatch, loss="mse")
    kinds = [layer.kind for layer in analysis.layers]
    assert [kinds.count(kind) for kind in ("Conv2d", "PReLU", "Linear")] == [4, 5, 4]
    assert {block.status for block in analysis.coverage.blocks} == {"analyzed"}
    assert analysis.coverage.analyzed == analysis.coverage.parameters == 389_040
    for layer in analysis.layers:
        assert layer.weights is not None
        assert layer.weights.spectral_norm is not None
        assert layer.moments is not None
        assert layer.kfac is not None
        assert layer.kfac.kronecker is not None
        assert layer.tnt is not None
        size = 1
        for mode in layer.tnt.modes:
            assert mode is not None
            size *= mode.size
        assert size == torch.Size(layer.shape).numel()
    first = analysis["conv1"].moments
    assert first is not None
    assert first.count == 64 * 46 * 46
    assert first.size == 28
    # White noise in, so its patches are white: the input of the first layer is as well conditioned as the sample shows.
    assert first.condition_number.identity is not None
    assert first.condition_number.identity < 1.3
    # 64 rows of 1152 features: the metric is singular, and says so instead of giving a number.
    dense = analysis["dense5"].moments
    assert dense is not None
    assert dense.rank <= 64
    assert dense.condition_number.identity is None


def test_a_recurrent_encoder_is_profiled_through_its_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("curvlab_recurrent")
    analysis = profile(
        "resemblyzer", "VoiceEncoder", (4, 12, 40), monkeypatch, loss="mse", analyses=("moments", "kfac")
    )
    gates = [f"lstm.{side}_l{i}" for i in range(3) for side in ("ih", "hh")]
    assert [layer.name for layer in analysis.layers if layer.kfac is not None] == [*gates, "linear"]
    skipped = {block.name: block.reason for block in analysis.coverage.blocks if block.status == "skipped"}
    assert set(skipped) == {"similarity_weight", "similarity_bias"}


def test_crepe_is_profiled_with_its_running_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = profile("crepe-tiny", "Crepe", (4, 1024), monkeypatch, analyses=("weights", "moments"))
    assert [layer.kind for layer in analysis.layers].count("Conv2d") == 6
    assert all(block.status == "analyzed" for block in analysis.coverage.blocks)


def test_the_command_line_does_the_same() -> None:
    """As a user would: the file, where its architecture is, random inputs of a given shape."""
    done = copies.run("-m", "curvlab_cli", "analyze", str(real_model("pnet")), cwd=HERE)
    assert done.returncode == 0, done.stderr
    assert "conv1" in done.stdout
    assert "--architecture" in done.stdout
    command = ["-m", "curvlab_cli", "analyze", str(real_model("onet")), "--architecture", "architectures:ONet"]
    command += ["--data", "gaussian:3x48x48", "--samples", "32", "--loss", "mse", "--analyses", "moments,kfac"]
    done = copies.run(*command, cwd=HERE)
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stdout
    assert all(name in done.stdout for name in ("conv4", "dense5", "dense6_3"))
