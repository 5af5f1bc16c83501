"""Dead and duplicated features and the energy of the mean, counted directly on the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curvlab.analyses import features as module
from curvlab.analyses.features import constant_features, duplicated_features, mean_energy
from curvlab.operators.operator import Dense, Diagonal, Grouped, Kronecker, LowRank, Operator


def forms(x: torch.Tensor) -> list[tuple[Operator, torch.Tensor]]:
    second, mean = x.double().T @ x.double() / len(x), x.double().mean(0)
    return [(Dense(second), mean), (LowRank(x, 1 / len(x)), mean), (Grouped(second[None]), mean[None])]


@pytest.mark.parametrize("rows", [20, 200])
def test_counts_are_those_of_the_data(rows: int) -> None:
    x = torch.randn(rows, 40) + 0.3
    x[:, 3] = 0.0
    x[:, 7] = -1.7
    x[:, 11] = x[:, 2]
    x[:, 12] = -3 * x[:, 2]
    x[:, 30] = 0.1 * x[:, 29] + 5
    x[:, 31] = x[:, 30] + 0.01 * torch.randn(rows)  # close to a copy, and none
    for second, mean in forms(x):
        assert constant_features(second, mean).nonzero().flatten().tolist() == [3, 7]
        assert duplicated_features(second, mean) == 3


def test_blocks_see_copies_in_other_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(100, 50)
    x[:, 40:45] = x[:, :5]
    x[:, 45] = x[:, 40]
    monkeypatch.setattr(module, "CHUNK", 50 * 7)
    assert [duplicated_features(second, mean) for second, mean in forms(x)] == [6, 6, 6]


def test_copies_in_other_groups_are_not_copies() -> None:
    x = torch.randn(100, 4).double()
    x[:, 1] = x[:, 0]
    stack = torch.stack([x.T @ x / 100] * 3)
    mean = x.mean(0).expand(3, 4)
    assert duplicated_features(Grouped(stack), mean) == 3
    assert constant_features(Grouped(stack), mean).sum() == 0


def test_one_row_is_constant_and_two_rows_are_copies() -> None:
    for rows, dead, copies in [(1, 9, 0), (2, 0, 8)]:
        for second, mean in forms(torch.randn(rows, 9)):
            assert int(constant_features(second, mean).sum()) == dead
            assert duplicated_features(second, mean) == copies


def test_float32_sums_hide_a_variance_unless_told() -> None:
    x = torch.relu(torch.randn(5000, 10))
    x[:, 8] = 0.7
    x[:, 9] = 3 * x[:, 1] + 0.1
    second, mean = Dense((x.T @ x).double() / 5000), x.double().mean(0)
    eps = torch.finfo(torch.float32).eps
    assert constant_features(second, mean, eps).nonzero().flatten().tolist() == [8]
    assert duplicated_features(second, mean, eps) == 1


@pytest.mark.parametrize(
    ("counts", "dead", "copies"),
    [([5, 3, 2], 0, 0), ([5, 3, 0], 1, 1), ([0, 7, 0], 3, 0), ([1, 0, 0, 1], 2, 1), ([1, 1, 1, 1], 0, 0)],
)
def test_one_hot_features(counts: list[int], dead: int, copies: int) -> None:
    """Two tokens alone are each other's complement; one token alone is a constant."""
    f = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    for second in (Diagonal(f), Dense(f.diag())):
        assert int(constant_features(second, f).sum()) == dead
        assert duplicated_features(second, f) == copies


def test_one_hot_features_of_a_vocabulary() -> None:
    f = torch.rand(30_522, dtype=torch.float64)
    f[100:200] = 0
    f /= f.sum()
    assert int(constant_features(Diagonal(f), f).sum()) == 100
    assert duplicated_features(Diagonal(f), f) == 0


def test_energy_of_the_mean() -> None:
    x = torch.randn(50, 6) + 2
    expected = np.square(x.double().numpy().mean(0)).sum() / np.square(x.double().numpy()).sum(1).mean()
    for second, mean in forms(x):
        assert mean_energy(second, mean) == pytest.approx(float(expected), rel=1e-12)
    assert mean_energy(Dense(torch.ones(2, 2)), torch.ones(2)) == 1.0
    assert mean_energy(Dense(torch.zeros(2, 2)), torch.zeros(2)) is None


def test_unknown_operators_are_named() -> None:
    with pytest.raises(TypeError, match="Kronecker"):
        duplicated_features(Kronecker((Dense(torch.eye(2)),)), torch.zeros(2))
