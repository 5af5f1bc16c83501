"""Likelihoods by name: "categorical", "bernoulli", "gaussian", and the losses that stand for them."""

from __future__ import annotations

from curvlab.errors import CurvlabError
from curvlab.likelihoods.bernoulli import Bernoulli
from curvlab.likelihoods.categorical import Categorical
from curvlab.likelihoods.gaussian import Gaussian
from curvlab.likelihoods.likelihood import FISHER_TYPES, FisherType, Likelihood

LIKELIHOODS: dict[str, type[Likelihood]] = {"categorical": Categorical, "bernoulli": Bernoulli, "gaussian": Gaussian}
LOSSES = {"cross-entropy": "categorical", "bce": "bernoulli", "mse": "gaussian"}
"""Name of a loss on the command line -> likelihood. "mse" means ½‖z − y‖² per example."""


def likelihood(name: str | Likelihood) -> Likelihood:
    """The likelihood of a name or of a loss's name; a Likelihood passes through.

    Raises:
        CurvlabError: the name is unknown.
    """
    if isinstance(name, Likelihood):
        return name
    key = LOSSES.get(name, name)
    if key not in LIKELIHOODS:
        raise CurvlabError(f"unknown likelihood {name!r}", "", f"use one of {', '.join([*LIKELIHOODS, *LOSSES])}")
    return LIKELIHOODS[key]()


__all__ = [
    "FISHER_TYPES",
    "LIKELIHOODS",
    "LOSSES",
    "Bernoulli",
    "Categorical",
    "FisherType",
    "Gaussian",
    "Likelihood",
    "likelihood",
]
