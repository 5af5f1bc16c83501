"""g = 1/N Σ_n ∂ℓ_n/∂W of some parameters, taken while batches run for another analysis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from curvlab.capture.forward_backward import ForwardBackward
from curvlab.capture.model_inputs import Inputs
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood
from curvlab.likelihoods.fisher import Fisher
from curvlab.linalg.float64 import double

Batch = tuple[Inputs, Tensor | None]
"""Inputs and targets."""


class MeanGradient:
    """The mean gradient over all batches that `watching` hands on, in float64.

    Args:
        module: the network.
        names: of parameters.
        likelihood: ℓ.
        seed: of targets that are drawn.

    Attributes:
        targets: "data" if the data's own fit the likelihood, else "drawn" from the network's own distribution.
        examples: N.
    """

    def __init__(self, module: nn.Module, names: Iterable[str], likelihood: Likelihood, seed: int) -> None:
        self.module, self.likelihood = module, likelihood
        everything = dict(module.named_parameters(remove_duplicate=False))
        self.parameters = {name: everything[name] for name in names if name in everything}
        self.targets: Literal["data", "drawn"] = "data"
        self.examples = 0
        self._sums = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in self.parameters.items()}
        self._generator = torch.Generator().manual_seed(seed)
        self._recorder = ForwardBackward(module, "fop", output_gradients=False, wanted=lambda _: ())

    def watching(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, each added on its way."""
        for inputs, targets in batches:
            self._add(inputs, targets)
            yield inputs, targets

    @property
    def means(self) -> dict[str, Tensor]:
        """Parameter -> g."""
        return {name: total / max(self.examples, 1) for name, total in self._sums.items()}

    def _add(self, inputs: Inputs, targets: Tensor | None) -> None:
        if self.targets == "data" and targets is not None:
            try:
                self._record(inputs, targets, "empirical")
                return
            except CurvlabError:
                if self.examples:  # the sum would be of both kinds
                    raise
        self.targets = "drawn"
        self._record(inputs, None, "mc")

    def _record(self, inputs: Inputs, targets: Tensor | None, fisher_type: str) -> None:
        fisher = Fisher(self.likelihood, fisher_type, generator=self._generator)
        record = self._recorder.batch(inputs, targets, fisher, parameters=self.parameters)
        for name, g in record.gradients.items():
            self._sums[name] += double(g).cpu() * record.examples
        self.examples += record.examples
