"""Sight: one forward and backward pass per batch, seen by every optimizer of a comparison."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from curvlab.capture.preserve import ModelState, preserve
from curvlab.capture.sample import Sample
from curvlab.capture.survey import Survey
from curvlab.likelihoods import Likelihood
from curvlab.optim.closures import Closure
from curvlab.optim.core import Named, Optimizer
from curvlab.optim.watch import Cotangent, Seen, Watch


class Sight:
    """Runs each batch once and remembers what it showed, until the next.

    The pseudo-targets are the same for all optimizers, and depend on the seed and the batch's number alone.

    Args:
        model: the network.
        likelihood: of its output.
        seed: of the pseudo-targets.

    Attributes:
        seen: the last batch with the output gradients of pseudo-targets.
    """

    def __init__(self, model: nn.Module, likelihood: Likelihood, seed: int) -> None:
        self.model, self.likelihood, self.seed = model, likelihood, seed
        self.seen: Seen | None = None
        self._watch = Watch(model, "compare")
        self._data: Seen | None = None
        self._batches = 0
        self._closure: Closure | None = None
        self._before = ModelState.of(model)
        """The model as the batch's first run found it."""

    @property
    def found(self) -> Survey | None:
        """The model's blocks, once it has run."""
        return self._watch.found

    def look(self, closure: Closure) -> Seen:
        """Run a batch; what `run` of the watches shows from now on is this batch."""
        self._batches += 1
        self._before = ModelState.of(self.model)
        self._closure, self._data = closure, None
        with torch.enable_grad():
            self.seen = self._watch.run(closure, self._gradients, self._pseudo)
        return self.seen

    @contextmanager
    def again(self) -> Iterator[None]:
        """For one more run of the batch: the same dropout masks; the model and random state are afterwards as now."""
        with preserve(self.model):
            self._before.restore()
            yield

    def linear(self) -> Tensor:
        """Σ g·W, a loss whose gradient is that of the batch: for optimizers that need nothing else of it."""
        assert self.seen is not None
        named = dict(self.model.named_parameters())
        with torch.enable_grad():
            return torch.stack([(named[name] * g).sum() for name, g in self.seen.gradients.items()]).sum()

    def watch_of(self, optimizer: Optimizer, output_gradients: bool) -> SharedWatch:
        """Eyes for an optimizer that would have run the model itself."""
        return SharedWatch(self, optimizer.name, output_gradients)

    def shown(self, pseudo: bool, output_gradients: bool) -> Seen:
        """The batch in samples of the caller's own, with the output gradients of pseudo-targets or the data's own."""
        assert self.seen is not None
        seen = self.seen
        if output_gradients and not pseudo:
            if self._data is None:
                assert self._closure is not None
                with self.again(), torch.enable_grad():
                    self._data = self._watch.run(self._closure, self._gradients, None)
            seen = self._data
        # Samples cache what is made from them, and optimizers may alter that: each gets its own, of the same tensors.
        samples = {name: Sample(s.calls, s.examples, s.dtype) for name, s in seen.samples.items()}
        return Seen(seen.loss, seen.examples, dict(seen.gradients), samples)

    def _gradients(self, loss: Tensor, retain_graph: bool = False) -> Named:
        trainable = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(loss, list(trainable.values()), retain_graph=retain_graph, allow_unused=True)
        return {name: g for name, g in zip(trainable, found, strict=True) if g is not None}

    def _pseudo(self, output: Tensor) -> Tensor:
        drawn = hashlib.sha256(f"{self.seed} {self._batches}".encode()).digest()[:7]
        generator = torch.Generator(output.device).manual_seed(int.from_bytes(drawn))
        return self.likelihood.drawn_residual(output.detach(), generator)


class SharedWatch(Watch):
    """A `Watch` that shows what its Sight has seen, in place of running the model."""

    def __init__(self, sight: Sight, name: str, output_gradients: bool) -> None:
        super().__init__(sight.model, name, output_gradients)
        self.sight = sight

    def run(self, closure: Closure, gradients_of: Callable[[Tensor, bool], Named], cotangent: Cotangent | None) -> Seen:
        """See `Watch.run`; `closure` and `cotangent` are the Sight's own."""
        self.found = self.sight.found
        return self.sight.shown(cotangent is not None, self.output_gradients)
