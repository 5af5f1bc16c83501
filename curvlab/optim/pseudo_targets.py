"""PseudoTargets: the targets that a step's output gradients are of, the same in a run that was interrupted."""

from __future__ import annotations

import hashlib

import torch

from curvlab.curvatures.curvature import Curvature
from curvlab.likelihoods import Likelihood
from curvlab.likelihoods.fisher import Fisher


class PseudoTargets:
    """Targets of the curvature's type, drawn on the model's device.

    Args:
        curvature: whose `fisher_type` and `mc_samples`.
        likelihood: of the model's outputs, or None where none are drawn.
        device: of the model.
        dtype: of the cotangents.
    """

    def __init__(
        self, curvature: Curvature, likelihood: Likelihood | None, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.curvature, self.likelihood, self.device, self.dtype = curvature, likelihood, device, dtype
        self._generator: torch.Generator | None = None

    def fisher(self, seed: str | None) -> Fisher:
        """Targets of the next batch.

        Args:
            seed: what this step's draws follow from, so that a resumed run draws what an uninterrupted one would; None
                for further batches of one step, which go on with its generator.
        """
        if self._generator is None:
            self._generator = torch.Generator(self.device)
        if seed is not None:
            self._generator.manual_seed(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:7]))
        kind, samples = self.curvature.fisher_type, self.curvature.mc_samples
        return Fisher(self.likelihood, kind, samples, self._generator, self.dtype)
