"""A last-layer K-FAC Laplace approximation from a factor file: how sure a trained network is of its outputs.

    python examples/laplace.py

The posterior of the last layer's W̄ is normal with precision N G ⊗ A + τ I, here (√N G + √τ I) ⊗ (√N A + √τ I)
(Ritter et al. 2018). An output s_k = W̄_k ā then has the variance (āᵀ Ã⁻¹ ā) (G̃⁻¹)_kk: larger where inputs are unlike
those of the training data.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import curvlab
from curvlab.data import load
from curvlab.factor_files.layer_factors import LayerFactors


class Posterior:
    """W̄ ~ N(its trained value, G̃⁻¹ ⊗ Ã⁻¹); τ is the prior's precision."""

    def __init__(self, factors: LayerFactors, tau: float) -> None:
        assert factors.gradient_factor is not None
        root = factors.origin.examples**0.5
        self.a, self.g = (
            (root * factor + tau**0.5 * torch.eye(len(factor), dtype=factor.dtype)).inverse()
            for factor in (factors.input_factor, factors.gradient_factor)
        )

    def variance(self, features: Tensor) -> Tensor:
        """Var s_k of every example `(n, k)`."""
        ones = torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
        return torch.einsum("ni,ij,nj->n", ones, self.a, ones)[:, None] * self.g.diagonal()


def probit(z: Tensor, variance: Tensor) -> Tensor:
    """E softmax(s) ≈ softmax(z/√(1 + π/8 Var s)) (MacKay 1992)."""
    return (z / (1 + torch.pi / 8 * variance).sqrt()).softmax(1)


def network() -> nn.Sequential:
    """64 → 10, the last layer by itself."""
    return nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 10))


def main(arguments: list[str] | None = None) -> None:
    """Print variance and confidence on held-out digits and on pictures that are none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tau", type=float, default=0.1, help="precision of the prior")
    tau = parser.parse_args(arguments).tau
    torch.manual_seed(0)
    digits = load("digits")
    x, y, order = digits.x.flatten(1), digits.y, torch.randperm(len(digits.x))
    train, test = order[:1200], order[1200:]
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(400):
        rows = train[torch.randint(0, len(train), (100,))]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "factors.safetensors"
        options = {"loss": "cross-entropy", "fisher_type": "type-2", "layers": ("4",)}
        curvlab.analyze(model, (x[train], y[train]), analyses=("factors",), factors=str(path), **options)
        posterior = Posterior(curvlab.load_factors(path)["4"], tau)
    pictures = {
        "digits seen": x[train],
        "digits not seen": x[test],
        "digits, pixels shuffled": x[test][:, torch.randperm(64)],
        "digits inverted": 1 - x[test],
        "noise": torch.rand(500, 64),
    }
    medians = {}
    with torch.no_grad():
        for words, shown in pictures.items():
            z, variance = model(shown).double(), posterior.variance(model[:-1](shown))
            medians[words] = float(variance.mean(1).median())
            plain, averaged = (float(p.amax(1).mean()) for p in (z.softmax(1), probit(z, variance)))
            print(f"{words:24} variance {medians[words]:7.3f}   confidence {plain:.0%}, averaged {averaged:.0%}")
    inside, outside = list(medians.values())[:2], list(medians.values())[2:]
    assert min(outside) > max(inside), "what is no digit must be less certain"


if __name__ == "__main__":
    main()
