"""What a comparison is on: problems by name, a network of the user's own with its data, or a saved model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from curvlab.analyses.loaded import Model, as_checkpoint
from curvlab.comparison.request import INTERVAL, Request
from curvlab.errors import CommandError, CurvlabError
from curvlab.problems.registry import PROBLEMS
from curvlab.training.own_network import OwnNetwork, as_dataset

PROBLEM = "digits-mlp"
What = str | Model | Sequence[str] | None


@dataclass(frozen=True)
class Source:
    """What is compared on; one of the three.

    Attributes:
        problems: names.
        own: a network made anew for every seed, with its data.
        model: a saved network or one in memory, at its weights.
    """

    problems: tuple[str, ...] = ()
    own: OwnNetwork | None = None
    model: Model | None = None

    @property
    def name(self) -> str:
        """For results that have no directions."""
        return self.own.name if self.own is not None else ",".join(self.problems)

    @property
    def directions(self) -> str | OwnNetwork | None:
        """What a trajectory of directions begins with; None at the weights of a model."""
        return self.own if self.own is not None else self.problems[0] if self.problems else None

    def races(self, asked: Request) -> dict[str, Any]:
        """What `RaceSettings` must know of it.

        Raises:
            CurvlabError: the model has no network that runs, or no data is given.
        """
        options = asked.data_options
        if self.model is None and self.own is None:
            return {"problems": self.problems, "data": options.data}
        if self.own is not None and isinstance(self.own.data, str):
            return {"problems": (), "architecture": self.own.name, "data": self.own.data, "loss": self.own.loss}
        return {"problems": (), "own": self.own or _at_its_weights(self.model, asked)}


def source_of(what: What, asked: Request) -> Source:
    """What `what` and the request's architecture name.

    Raises:
        CurvlabError: both or neither name something, a word names no problem, or an option has no effect on it.
    """
    if asked.architecture is not None:
        if what is not None:
            raise CommandError(
                "an architecture is given beside a problem or model", "a comparison is of one of them", "leave one out"
            )
        options = asked.data_options
        data = as_dataset(options.data)
        return Source(own=OwnNetwork.of_architecture(asked.architecture, data, options.loss))
    what = PROBLEM if what is None else what
    if isinstance(what, str):
        found = Source((what,)) if what in PROBLEMS else Source(model=what)
    elif isinstance(what, list | tuple):
        found = Source(tuple(PROBLEMS.find(word).name for word in what))
    else:
        found = Source(model=what)  # type: ignore[arg-type]
    _refuse_idle(found, asked)
    return found


def _refuse_idle(found: Source, asked: Request) -> None:
    if found.problems:
        if asked.data_options.loss != "auto":
            raise CommandError("loss is of a network of your own or a saved model", "a problem has its own")
        if asked.mode != "training" and len(found.problems) > 1:
            raise CommandError("directions are of one problem at a time", f"{len(found.problems)} are given")
        return
    moved = {"warm_start": not asked.warm_start, "interval": asked.interval != INTERVAL}
    moved["steps"] = asked.mode != "training" and asked.steps is not None
    for name, chosen in moved.items():
        if chosen and asked.mode != "training":
            raise CommandError(
                f"{name} is about a trajectory",
                "nothing moves at the weights of a model",
                "leave it out",
            )


def _at_its_weights(model: Model | None, asked: Request) -> OwnNetwork:
    """For races that begin at a model's weights."""
    assert model is not None
    checkpoint, options = as_checkpoint(model), asked.data_options
    if checkpoint.module is None:
        raise CurvlabError(
            "the file holds weights only, and a race needs a network that runs",
            "; ".join(checkpoint.notes),
            "give --architecture package.module:callable",
        )
    data = options.data if options.data is not None else checkpoint.data
    if data is None:
        raise CommandError("a race needs data, and there is none", do="give --data NAME or PATH")
    recorded = {"categorical": "cross-entropy", "bernoulli": "bce", "gaussian": "mse"}.get(checkpoint.likelihood or "")
    loss = recorded if options.loss == "auto" and recorded else options.loss
    module: nn.Module = checkpoint.module
    own = OwnNetwork.of_module(module, as_dataset(data), loss)
    return replace(own, build=partial(copy.deepcopy, module), folders=checkpoint.folders)
