"""Optimizers by name: `create("kfac", model, likelihood="categorical", lr=0.03)`. A package of one's own registers as
the built-in ones do: a class under `@register("mine")` in a module that the entry-point group `curvlab.optimizers`
names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from curvlab.fields import fields_of
from curvlab.likelihoods import Likelihood
from curvlab.optim.core import Optimizer
from curvlab.optim.declared import Params
from curvlab.registry import Registry

OPTIMIZERS: Registry[type[Optimizer]] = Registry("optimizer", "curvlab.optimizers", "curvlab.optim.builtin")
"""Every optimizer by name, the built-in ones first."""

Made = TypeVar("Made", bound=type[Optimizer])


def register(name: str, *, source: str = "") -> Callable[[Made], Made]:
    """A decorator that makes a class known as `name` to `create`, the command line, comparisons and races.

    Args:
        name: the optimizer's; it becomes the class's `name`.
        source: the paper it is from, for tables.

    Raises:
        TypeError: the class is no `curvlab.optim.Optimizer`.
        ValueError: another optimizer has the name.
    """

    def made(kind: Made) -> Made:
        if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
            raise TypeError(f"{kind!r} is registered as the optimizer {name!r} and is no curvlab.optim.Optimizer")
        OPTIMIZERS.register(name, kind)
        kind.name, kind.source = name, source
        return kind

    return made


def create(
    name: str, model: nn.Module | Params, *, likelihood: str | Likelihood | None = None, **settings: Any
) -> Optimizer:
    """The optimizer of a name with settings by name.

    Args:
        name: a key of `OPTIMIZERS`.
        model: the network; for methods that need gradients alone, parameters as torch.optim takes them will do.
        likelihood: of its output; ignored by methods that need gradients alone.
        settings: its constructor's.

    Raises:
        CurvlabError: no optimizer has that name, or no such setting.
    """
    kind: Any = OPTIMIZERS.find(name)
    if "likelihood" in fields_of(kind):
        settings = {"likelihood": likelihood, **settings}
    made: Optimizer = kind(model, **settings)
    return made
