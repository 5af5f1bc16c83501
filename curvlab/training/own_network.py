"""OwnNetwork: a network and data of the user's own, which become a problem like any other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from curvlab.analyses.likelihood_choice import choose_likelihood
from curvlab.capture.output import answer
from curvlab.data.as_taken import as_taken
from curvlab.data.corpus import is_text
from curvlab.data.dataset import Dataset
from curvlab.data.fit import input_shape
from curvlab.data.load import load
from curvlab.data.named_inputs import NamedInputs
from curvlab.data.preparation import Preparation
from curvlab.data.registry import names
from curvlab.errors import CurvlabError, DataError
from curvlab.formats.architecture import build_architecture
from curvlab.formats.load import load as load_model
from curvlab.problems.metrics import accuracy, perplexity, reconstruction_error, squared_error
from curvlab.problems.problem import Problem, Targets
from curvlab.quoting import quoted, reason

if TYPE_CHECKING:
    from curvlab.problems.problem import Metric

HELD_OUT = 0.2
"""Share of the examples to test on where the data has no test part of its own."""
EPOCHS, BATCH_SIZE, SEQUENCES = 10, 128, 16
"""Epochs, batch size, and sequences of a batch for a network whose options say none of them."""
MOST_TOKENS = 2**24
"""Tokens of a text that are trained on; of a longer one the first."""


@dataclass(frozen=True)
class OwnNetwork:
    """A network and its data.

    Attributes:
        name: what results call it: "package.module:callable".
        build: makes the network, with torch's random numbers where it draws any.
        data: a dataset's name, a path, or the examples.
        loss: "cross-entropy", "bce", "mse", "next-token" or "auto".
        folders: of a saved network: where its tokenizer and the settings of its preprocessor are.
    """

    name: str
    build: Callable[[], nn.Module]
    data: str | Dataset
    loss: str = "auto"
    folders: tuple[Path, ...] = ()

    @classmethod
    def of_architecture(cls, architecture: str, data: str | Dataset, loss: str) -> OwnNetwork:
        """What "package.module:callable" makes, or a saved network, with its weights."""
        if ":" not in architecture or Path(architecture).exists():
            return cls.of_saved(architecture, data, loss)
        return cls(architecture, partial(build_architecture, architecture), data, loss)

    @classmethod
    def of_saved(cls, path: str, data: str | Dataset, loss: str) -> OwnNetwork:
        """The network of a file or folder that `curvlab.load` reads, with the weights that it has.

        Raises:
            CurvlabError: it cannot be read, or holds weights only.
        """
        checkpoint = load_model(path)
        if checkpoint.module is None:
            why = "; ".join(checkpoint.notes) or "it holds weights only"
            raise CurvlabError(f"{quoted(path)} has no network to train", why, "give package.module:callable")
        recorded = {"categorical": "cross-entropy", "bernoulli": "bce", "gaussian": "mse"}
        known = recorded.get(checkpoint.likelihood or "", loss) if loss == "auto" else loss
        return cls(path, partial(copy.deepcopy, checkpoint.module), data, known, checkpoint.folders)

    @classmethod
    def of_module(cls, module: nn.Module, data: str | Dataset, loss: str) -> OwnNetwork:
        """A network in memory, with the weights that it has."""
        kind = type(module)
        return cls(f"{kind.__module__}:{kind.__qualname__}", partial(copy.deepcopy, module), data, loss)


def as_dataset(data: object) -> str | Dataset:
    """A name or path as it is, and examples as a Dataset.

    Raises:
        DataError: what was given holds no examples that could be shuffled and divided.
    """
    if isinstance(data, str | Dataset):
        return data
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Tensor) and isinstance(data[1], Tensor):
        return Dataset("tensors", data[0], data[1], "tensors given in Python")
    found = f"data of type {type(data).__name__} cannot be trained on"
    raise DataError(
        found, "examples are shuffled, and some held out", "give a dataset's name, a path, or (x, y) tensors"
    )


def own_problem(
    own: OwnNetwork, seed: int = 0, max_memory: int | None = None
) -> tuple[Problem, str | Dataset, tuple[str, ...]]:
    """The problem, with the weights that `seed` draws; its data; and what the user should know of it.

    Tokens and the like are made ready for the network here, once; of text the end is held out.

    Raises:
        CurvlabError: network or data cannot be had, or do not fit each other.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = own.build().eval()
    whole = own.data
    if isinstance(whole, str):
        preparation = Preparation(module, own.folders)
        whole = load(
            whole,
            input_shape=input_shape(module),
            samples=_whole_text(whole, preparation),
            seed=seed,
            max_memory=max_memory,
            preparation=preparation,
        )
    whole, sequences = as_taken(whole, module, own.loss)
    of_tokens = isinstance(whole, NamedInputs) or sequences is not None
    y, z = whole.y, output_of(module, whole)
    if y is None and of_tokens:
        do = "give labels beside the tokens, or --loss next-token, which takes the tokens themselves"
        raise DataError(f"{whole.source} has no targets", "a network is trained on labels", do)
    x = whole.x[:2]
    inputs = own.loss in ("bce", "mse") and z.shape == x.shape and (y is None or y[:1].numel() != x[:1].numel())
    shown = whole.x if inputs else y
    likelihood, note = choose_likelihood(own.loss, None, z, shown, whole.inputs(slice(2)), sequences)
    targets: Targets = "inputs" if inputs else "labels" if likelihood.name == "categorical" else "values"
    data = whole if of_tokens else own.data
    text = sequences is not None and sequences.convention == "next token"
    made = Problem(
        name=own.name,
        description=f"{own.name} on {whole.source}",
        source="the user's own",
        model=partial(copy.deepcopy, module),
        data=own.data if isinstance(own.data, str) else whole.source,
        input_shape=tuple(x.shape[1:]),
        targets=targets,
        likelihood=likelihood.name,
        metrics=_metrics(likelihood.name, targets, shown, text=text),
        test_size=max(1, round(HELD_OUT * len(whole))),
        batch_size=min(BATCH_SIZE if not of_tokens else SEQUENCES, max(1, len(whole) // 2)),
        epochs=EPOCHS,
        settings={},
        held_out="last" if text else "drawn",
    )
    return made, data, (note,) if note else ()


def _whole_text(spec: str, preparation: Preparation) -> int | None:
    """Sequences of a whole text, which has a token per byte at most, or of its beginning; None for other data."""
    path = Path(spec).expanduser()
    if spec in names() or not path.is_file() or not is_text(path):
        return None
    length = preparation.text.length
    return max(2, min(path.stat().st_size, MOST_TOKENS) // length)


def _metrics(likelihood: str, targets: Targets, y: Tensor | None, *, text: bool) -> Mapping[str, Metric]:
    if likelihood == "categorical":
        return {"accuracy": accuracy, "perplexity": perplexity} if text else {"accuracy": accuracy}
    if likelihood == "gaussian":
        return {"squared_error": squared_error}
    if targets == "values" and y is not None and bool(((y == 0) | (y == 1)).all()):
        return {"accuracy": binary_accuracy}
    return {"reconstruction_error": reconstruction_error}


def binary_accuracy(z: Tensor, y: Tensor) -> Tensor:
    """1/n Σ_n mean_j [(z_nj > 0) = y_nj]: logits z and targets y in {0, 1} of one shape → a scalar in [0, 1]."""
    return ((z > 0) == (y > 0.5)).to(z.dtype).mean()


def output_of(module: nn.Module, dataset: Dataset) -> Tensor:
    """What a copy of the network answers to two examples in eval mode, as a tensor; the network is not touched."""
    two = dataset.at(slice(2)).mapped(lambda t: t.float() if t.is_floating_point() else t)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copied = copy.deepcopy(module).float().eval()
            return answer(copied, two.inputs(slice(None)))
    except CurvlabError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shape = "x".join(map(str, dataset.x.shape[1:]))
        found = f"the network cannot take {dataset.source}, examples of shape {shape}"
        raise DataError(found, reason(error), "give other data, or change the architecture") from error
