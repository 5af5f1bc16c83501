"""Problem: min_w 1/N Σ_n ℓ(f(x_n; w), y_n) with everything that running it needs, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor, nn

    from curvlab.data.dataset import Dataset
    from curvlab.problems.split import Split

    Metric = Callable[[Tensor, Tensor], Tensor]

Targets = Literal["labels", "inputs", "values"]
"""What the network is to answer: class numbers, its own input, or real numbers."""


HeldOut = Literal["drawn", "last"]


@dataclass(frozen=True)
class Problem:
    """A network, data, a likelihood, and how they are trained. Not to be changed; `dataclasses.replace` makes variants.

    Attributes:
        name: what `problem(name)` and `--problem` take.
        description: one line for a table.
        source: the paper or page it comes from.
        model: makes the network with torch's own random numbers; made of torch's layers in `nn.Sequential`, it can be
            saved by `curvlab.save` so that the file needs nothing more.
        data: the name of a dataset, or the path where people have it.
        input_shape: of one example, as the network takes it.
        targets: see `Targets`.
        likelihood: "categorical", "bernoulli" or "gaussian".
        metrics: name -> function of (z, y), a mean over examples like `loss`.
        test_size: examples held out where the data has no test part of its own.
        held_out: which: "drawn" by the seed, or the "last", of data that is one long sequence.
        batch_size: examples per step.
        epochs: passes over the training set in an ordinary run.
        settings: optimizer -> setting -> value: what to start from. An optimizer that is not in it does not fit this
            problem, or was not tried.
        initialise: overwrites the weights that the layers' constructors drew; None leaves them.
        obtain: for data on disk, how to get it: the end of the error's sentence when it is not there.
    """

    name: str
    description: str
    source: str
    model: Callable[[], nn.Module]
    data: str
    input_shape: tuple[int, ...]
    targets: Targets
    likelihood: str
    metrics: Mapping[str, Metric]
    test_size: int
    batch_size: int
    epochs: int
    settings: Mapping[str, Mapping[str, float | bool | str]]
    initialise: Callable[[nn.Module], None] | None = None
    held_out: HeldOut = "drawn"
    obtain: str = ""

    def __post_init__(self) -> None:
        if self.targets not in get_args(Targets):
            raise ValueError(f"targets is {self.targets!r}, not one of {', '.join(get_args(Targets))}")
        for name in ("test_size", "batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, not a whole number from 1")

    def build(self, seed: int = 0) -> nn.Module:
        """The network with the weights that `seed` draws, on the CPU; no other random number is touched."""
        import torch

        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            # Not torch.manual_seed, which would seed the GPUs as well and not put them back.
            torch.default_generator.manual_seed(seed)
            module = self.model()
            if self.initialise is not None:
                self.initialise(module)
        return module

    def load(self, seed: int = 0, data: str | Dataset | None = None, max_memory: int | None = None) -> Split:
        """Training and test examples as the network takes them; see `load_split`.

        Args:
            seed: of the draw of the test examples.
            data: a dataset's name or path, or examples, to use in place of the problem's own.
            max_memory: bytes that the data may take; None = the machine's memory.
        """
        from curvlab.problems.split import load_split

        return load_split(self, seed, data, max_memory)

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        """1/n Σ_n ℓ(z_n, y_n), ℓ = −log p(y | z) of the likelihood, summed over the outputs of an example: a scalar."""
        from curvlab.likelihoods import likelihood
        from curvlab.likelihoods.of_batch import of_batch

        return of_batch(likelihood(self.likelihood), z, y).loss(z, y)
