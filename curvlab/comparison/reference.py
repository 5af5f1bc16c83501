"""Reference: what all directions are compared with, and what moves the weights along a trajectory."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.comparison.exact_baseline import ExactBaseline, Part
from curvlab.comparison.shadow_optimizer import ShadowOptimizer
from curvlab.optim.core import Named


class OptimizerReference:
    """An optimizer as the baseline."""

    def __init__(self, shadow: ShadowOptimizer) -> None:
        self.shadow = shadow

    def propose(self, gradient: Named) -> Named:
        """Where it goes."""
        return self.shadow.propose()

    def direction(self, gradient: Named) -> Named:
        """Its direction for a given gradient."""
        return self.shadow.optimizer.direction(gradient)

    def move(self, directions: Named) -> None:
        """The step itself."""
        with torch.no_grad():
            self.shadow.optimizer.move(directions)


class ExactReference:
    """(B + λI)⁻¹g of the whole data as the baseline, W ← W − αp."""

    def __init__(self, baseline: ExactBaseline, whole: tuple[Part, ...], lr: float) -> None:
        self.baseline, self.whole, self.lr = baseline, list(whole), lr

    def propose(self, gradient: Named) -> Named:
        """p for the averaged gradient."""
        return self.baseline.solve(gradient, self.whole)

    def direction(self, gradient: Named) -> Named:
        """p for a given gradient."""
        return self.baseline.solve(gradient, self.whole)

    def move(self, directions: Named) -> None:
        """W ← W − αp."""
        with torch.no_grad():
            for name, p in self.baseline.parameters.items():
                if name in directions:
                    p.sub_(directions[name], alpha=self.lr)


Reference = OptimizerReference | ExactReference


class AveragedGradient:
    """m̂ = Σ_s β^{t−s}(1 − β)g_s / (1 − βᵗ); with β = None the mean over all examples."""

    def __init__(self, decay: float | None = 0.9) -> None:
        self.decay, self._weight = decay, 0.0
        self._mean: dict[str, Tensor] = {}

    def add(self, gradients: Named, examples: int) -> None:
        """The gradient of a batch of so many examples."""
        if self.decay is None:
            self._weight, share = self._weight + examples, examples / (self._weight + examples)
        else:
            self._weight = self.decay * self._weight + 1 - self.decay
            share = (1 - self.decay) / self._weight
        for name, g in gradients.items():
            self._mean[name] = self._mean[name].lerp(g, share) if name in self._mean else g.clone()

    def value(self) -> Named:
        """The average."""
        return dict(self._mean)
