"""The whitening table from literal matrices: the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curvlab.analyses.whitening import Whitening

NONE = Whitening(None, None, None, None, None)


def features(rows: int, size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, dtype=torch.float64, generator=generator)
    return torch.relu(torch.randn(rows, size, dtype=torch.float64, generator=generator) @ mix + 1.0)


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.mT @ x / x.shape[-2], x.mean(-2)


def literal(x: torch.Tensor, biased: bool) -> Whitening:
    """Every matrix as the papers write it."""
    a = x.numpy()
    mu, sigma = a.mean(0), np.cov(a.T, bias=True).reshape(a.shape[1], a.shape[1])
    ones = np.concatenate([a, np.ones((len(a), 1))], 1) if biased else a
    m = ones.T @ ones / len(a)
    d = np.diag(np.diag(m) ** -0.5)
    if biased:
        root = np.diag(np.diag(sigma) ** -0.5)
        w = np.block([[root, np.zeros((len(mu), 1))], [-mu[None] @ root, np.ones((1, 1))]])
        centered = np.block([[sigma, np.zeros((len(mu), 1))], [np.zeros((1, len(mu))), np.ones((1, 1))]])
    else:
        w, centered = d, sigma
    return Whitening(*(float(np.linalg.cond(k)) for k in (m, centered, d @ m @ d, w.T @ m @ w)), 1.0)


def literal_over_range(x: torch.Tensor, biased: bool) -> Whitening:
    """Squared singular values of the data after each normalisation, features that allow none left out."""
    a = x.numpy()
    spent = a[:, np.abs(a).max(0) > 0]
    moving = a[:, np.ptp(a, 0) > 0]
    centred = moving - moving.mean(0)

    def condition(rows: np.ndarray, one: bool) -> float:
        found = np.square(np.linalg.svd(rows / np.sqrt(len(a)), compute_uv=False))
        kept = np.append(found[found > 1e-11 * found.max(initial=0.0)], [1.0] if one else [])
        return float(kept.max() / kept.min())

    ones = np.concatenate([spent, np.ones((len(a), int(biased)))], 1)
    diagonal = condition(ones / np.sqrt(np.square(ones).mean(0)), False)
    lnb = condition(centred / centred.std(0), True) if biased else diagonal
    return Whitening(condition(ones, False), condition(centred, biased), diagonal, lnb, 1.0)


def assert_close(found: Whitening, expected: Whitening, rel: float = 1e-8) -> None:
    for name in ("identity", "centered", "diagonal", "lnb", "whitened"):
        number = getattr(expected, name)
        assert getattr(found, name) == (None if number is None else pytest.approx(number, rel=rel)), name
