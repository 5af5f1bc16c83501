"""SharedRecorder: one forward and backward pass per batch, shown to every optimizer of a comparison."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from curvlab.capture.batch_record import BatchRecord, Observer
from curvlab.capture.closures import Closure
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.capture.preserve import ModelState, preserve
from curvlab.capture.survey import Survey
from curvlab.likelihoods import Likelihood
from curvlab.likelihoods.fisher import Fisher


class SharedBatch:
    """Runs each batch once and keeps its record for all optimizers until the next.

    The pseudo-targets are the same for all optimizers, and depend on the seed and the batch's number alone.

    Args:
        model: the network.
        likelihood: of its output.
        seed: of the pseudo-targets.

    Attributes:
        record: of the last batch, with the output gradients of one drawn target per example.
    """

    def __init__(self, model: nn.Module, likelihood: Likelihood, seed: int) -> None:
        self.model, self.likelihood, self.seed = model, likelihood, seed
        self.record: BatchRecord | None = None
        self._recorder = ForwardBackward(model, "compare")
        self._others: dict[tuple[str, int], BatchRecord] = {}
        self._batches = 0
        self._closure: Closure | None = None
        self._before = ModelState.of(model)
        """The model as the batch's first run found it."""

    @property
    def found(self) -> Survey | None:
        """The model's blocks, once it has run."""
        return self._recorder.found

    def run(self, closure: Closure) -> BatchRecord:
        """Run the batch and keep its record for all optimizers."""
        self._batches += 1
        self._before = ModelState.of(self.model)
        self._closure, self._others = closure, {}
        self.record = self._run(closure, self._fisher("mc", 1))
        return self.record

    @contextmanager
    def again(self) -> Iterator[None]:
        """For one more run of the batch: the same dropout masks; the model and random state are afterwards as now."""
        with preserve(self.model):
            self._before.restore()
            yield

    def linear(self) -> Tensor:
        """Σ g·W, a loss whose gradient is that of the batch: for optimizers that need nothing else of it."""
        assert self.record is not None
        named = dict(self.model.named_parameters())
        with torch.enable_grad():
            return torch.stack([(named[name] * g).sum() for name, g in self.record.gradients.items()]).sum()

    def shown(self, fisher: Fisher | None) -> BatchRecord:
        """The batch with output gradients of these targets; the batch is run once more for targets that are new."""
        assert self.record is not None
        assert self._closure is not None
        if fisher is None or not fisher.backward or (fisher.fisher_type, fisher.mc_samples) == ("mc", 1):
            return self.record
        key = fisher.fisher_type, fisher.mc_samples
        if key not in self._others:
            with self.again():
                self._others[key] = self._run(self._closure, self._fisher(*key))
        return self._others[key]

    def _run(self, closure: Closure, fisher: Fisher) -> BatchRecord:
        trainable = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        with torch.enable_grad():
            return self._recorder.closure(closure, trainable, fisher, keep=True, scaled=True)

    def _fisher(self, fisher_type: str, mc_samples: int) -> Fisher:
        drawn = hashlib.sha256(f"{self.seed} {self._batches}".encode()).digest()[:7]
        p = next(self.model.parameters())
        generator = torch.Generator(p.device).manual_seed(int.from_bytes(drawn))
        dtype = torch.promote_types(p.dtype, torch.float32)
        return Fisher(self.likelihood, fisher_type, mc_samples, generator, dtype)


class SharedRecorder(ForwardBackward):
    """The recorder of an optimizer in a comparison: it shows the shared batch in place of running the model."""

    def __init__(self, batch: SharedBatch, name: str, output_gradients: bool) -> None:
        super().__init__(batch.model, name, output_gradients=output_gradients)
        self.shared = batch

    def closure(
        self,
        closure: Closure,
        parameters: Mapping[str, Tensor],
        fisher: Fisher | None = None,
        observer: Observer | None = None,
        keep: bool = False,
        scaled: bool = False,
    ) -> BatchRecord:
        """See `ForwardBackward.closure`; what is run is the shared batch."""
        self.found = self.shared.found
        record = self.shared.shown(fisher if self.wants_gradients else None)
        if observer is not None:
            with torch.no_grad():
                record.replay(observer)
        inputs = {name: sample.copy() for name, sample in record.inputs.items()}
        return replace(record, gradients=dict(record.gradients), inputs=inputs, passes=record.passes if keep else ())
