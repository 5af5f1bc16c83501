"""g = 1/N Σ_n ∂ℓ_n/∂W of some parameters, taken while batches pass by on their way to another use of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from curvlab.capture.output import output_tensor
from curvlab.capture.tape import Inputs, batch_size, call_model, explained
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood
from curvlab.likelihoods.class_axis import with_class_axis
from curvlab.linalg.float64 import double

Batch = tuple[Inputs, Tensor | None]
"""Inputs and targets."""


class MeanGradient:
    """The mean gradient over all batches that `watching` hands on, in float64.

    Args:
        module: the network; the parameters asked for are made trainable.
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
        self.parameters = {name: everything[name].requires_grad_() for name in names if name in everything}
        self.targets: Literal["data", "drawn"] = "data"
        self.examples = 0
        self._sums = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in self.parameters.items()}
        self._generator = torch.Generator().manual_seed(seed)

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
        with torch.enable_grad(), explained("a batch of the data"):
            z = output_tensor(call_model(self.module, inputs))
        if z.requires_grad:  # else the output depends on none of the parameters
            cotangent = self._cotangent(z.detach(), targets)
            found = torch.autograd.grad(z, list(self.parameters.values()), cotangent.to(z.dtype), allow_unused=True)
            for total, g in zip(self._sums.values(), found, strict=True):
                if g is not None:
                    total += double(g).cpu()
        self.examples += batch_size(inputs)

    def _cotangent(self, z: Tensor, targets: Tensor | None) -> Tensor:
        """∂ℓ/∂z of every example."""
        likelihood = with_class_axis(self.likelihood, z, targets)
        if self.targets == "data" and targets is not None:
            likelihood.check_targets(z, targets)
            try:
                return next(likelihood.cotangents(z, targets, "empirical", 1, None))
            except CurvlabError:
                if self.examples:  # the sum would be of both kinds
                    raise
        self.targets = "drawn"
        return next(with_class_axis(self.likelihood, z, None).cotangents(z, None, "mc", 1, self._generator))
