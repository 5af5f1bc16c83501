"""BatchRecord: features, output gradients, loss and gradients of one batch, from one forward and backward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from curvlab.capture.sample import Sample
from curvlab.likelihoods import Likelihood

Samples = Mapping[str, Sample]
"""Block name -> its inputs, and in a backward pass its output gradients."""


@runtime_checkable
class Observer(Protocol):
    """Takes statistics of a batch while it is recorded, or afterwards from its record."""

    def inputs(self, samples: Samples) -> None:
        """Called once for every block that has run."""

    def output_gradients(self, samples: Samples, passed: int) -> None:
        """Called once for every block that backward pass number `passed` has reached; the inputs are there too.

        Blocks that share parameters come together, so that gradients of one parameter can be added up.
        """


@runtime_checkable
class BatchObserver(Observer, Protocol):
    """An observer that is told where a batch ends."""

    def end(self, examples: int) -> None:
        """The batch had so many examples."""


@dataclass(frozen=True)
class Together:
    """Several observers of one recording, in turn. None of them may overwrite what it is shown."""

    observers: Sequence[BatchObserver]

    def inputs(self, samples: Samples) -> None:
        """See `Observer.inputs`."""
        for one in self.observers:
            one.inputs(samples)

    def output_gradients(self, samples: Samples, passed: int) -> None:
        """See `Observer.output_gradients`."""
        for one in self.observers:
            one.output_gradients(samples, passed)

    def end(self, examples: int) -> None:
        """See `BatchObserver.end`."""
        for one in self.observers:
            one.end(examples)


@dataclass(frozen=True, eq=False)
class BatchRecord:
    """One batch.

    Attributes:
        examples: N.
        loss: of the closure, without its graph; None where inputs were run without a closure.
        gradients: of that loss, by parameter name.
        likelihood: of the outputs, with the axis of the classes and the positions that count in this batch; None where
            no likelihood was given.
        scale: c such that the closure's loss is c times the mean over examples of ℓ_n; 1 where it is not known.
        inputs: block name -> sample without output gradients.
        passes: the samples of every backward pass, where they were kept.
    """

    examples: int
    loss: Tensor | None = None
    gradients: dict[str, Tensor] = field(default_factory=dict)
    likelihood: Likelihood | None = None
    scale: Tensor | float = 1.0
    inputs: dict[str, Sample] = field(default_factory=dict)
    passes: tuple[dict[str, Sample], ...] = ()

    def replay(self, observer: Observer) -> None:
        """Show the kept record to one more observer.

        Samples cache what is made from them, and observers may overwrite that: each gets samples of its own, of the
        same tensors.
        """
        observer.inputs({name: sample.copy() for name, sample in self.inputs.items()})
        for passed, samples in enumerate(self.passes):
            observer.output_gradients({name: sample.copy() for name, sample in samples.items()}, passed)
