"""Which likelihood an analysis uses: what the user says, what the file recorded, or what targets and outputs look
like. Likelihoods take logits: outputs that are probabilities already are seen and said."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from curvlab.data.sequence_targets import SequenceTargets
from curvlab.errors import CurvlabError, DataError
from curvlab.formats.onnx.running.network import OnnxNetwork
from curvlab.likelihoods import Bernoulli, Categorical, Likelihood, likelihood
from curvlab.likelihoods.class_axis import with_class_axis
from curvlab.likelihoods.of_batch import of_batch
from curvlab.quoting import quoted

ROUNDING = 1e-5
"""How far the sum of a softmax in single precision may be from 1."""


def choose_likelihood(
    loss: str,
    recorded: str | None,
    z: Tensor,
    y: Tensor | None,
    inputs: Any = None,
    sequences: SequenceTargets | None = None,
) -> tuple[Likelihood, str | None]:
    """The likelihood, and a sentence for the user where it was guessed or the outputs are no logits.

    Args:
        loss: "cross-entropy", "bce", "mse", "next-token" or "auto".
        recorded: what the model file says, or None.
        z: the model's output for a few examples.
        y: targets, or None.
        inputs: what those examples were: of tokens, the output's axis of positions is known without targets.
        sequences: what the network says of sequences, where it is of such a kind: each position is then a choice of
            one token, classes last.

    Raises:
        DataError: with "auto", when nothing tells, or the kind of network is trained on a loss that curvlab has not.
    """
    if sequences is not None:
        if sequences.convention == "alignment" and loss == "auto":
            raise _no_alignment(sequences)
        if sequences.convention == "features":
            if loss == "auto" and y is None:
                name = type(sequences.module).__name__
                return likelihood("mse"), f"loss: mse (½‖z − y‖²), since {name} answers with features (--loss sets it)"
        elif z.ndim == 3:
            return Categorical(class_axis=-1), None
    name, note = "cross-entropy" if loss == "next-token" else loss, None
    if loss == "auto":
        name, note = (recorded, None) if recorded else _guess(z, y)
    chosen = likelihood(name)
    try:
        chosen = with_class_axis(chosen, z, y, inputs)
    except CurvlabError:  # both axes fit
        assert y is not None
        chosen, classes = _by_the_loss(z, y)
        note = f"{note}; {classes}" if note else classes
    if isinstance(chosen, Categorical) and not chosen.found and z.ndim > 2:
        shape = ", ".join(map(str, z.shape[1:]))
        note = f"classes: axis 1 of the output (examples, {shape}) is assumed without targets"
    activation = applied_activation(chosen, z)
    if activation is not None:
        loss_name = "cross-entropy" if activation == "Softmax" else "bce"
        doubt = (
            f"the outputs look like probabilities, and likelihoods take logits: {loss_name} of them would apply "
            f"{activation.lower()} twice; leave the {activation.lower()} out of the network"
        )
        note = f"{note}; {doubt}" if note else doubt
    return chosen, note


def _no_alignment(sequences: SequenceTargets) -> DataError:
    return DataError(
        f"{type(sequences.module).__name__} is trained with a CTC loss",
        "it sums over alignments, and is no likelihood of one position that curvlab has",
        "give --loss cross-entropy for the Fisher of what each position says alone (targets are drawn: no labels)",
    )


def _by_the_loss(z: Tensor, y: Tensor) -> tuple[Likelihood, str]:
    """Where as many positions as classes leave it open: the axis with the lower loss on these examples."""
    losses = {axis: float(of_batch(Categorical(axis), z, y[: len(z)]).loss(z, y[: len(z)])) for axis in (1, -1)}
    axis = min(losses, key=losses.__getitem__)
    where, other = ("axis 1", "the last") if axis == 1 else ("the last axis", "axis 1")
    lower, higher = losses[axis], losses[-axis]
    note = (
        f"classes: {where} of the output, where the loss of the first examples is {lower:.3g} ({other}: {higher:.3g})"
    )
    return Categorical(axis), note


def applied_activation(chosen: Likelihood, z: Tensor) -> str | None:
    """ "Softmax" or "Sigmoid" where z has the values of one, which the likelihood would apply again; else None.

    Probabilities of classes: z ≥ 0 and |Σ_c z_c − 1| ≤ 1e-5 in every row. Of independent outputs: 0 ≤ z ≤ 1, not all at
    the ends. The logarithm of a softmax needs no such care: softmax(log p) = p.
    """
    if not z.is_floating_point() or not z.numel():
        return None
    if isinstance(chosen, Categorical) and z.ndim > 1:
        sums = z.double().sum(chosen.class_axis)
        return "Softmax" if bool((z >= 0).all() and ((sums - 1).abs() <= ROUNDING).all()) else None
    if isinstance(chosen, Bernoulli):
        within, inside = (z >= 0) & (z <= 1), (z > 0) & (z < 1)
        return "Sigmoid" if bool(within.all() and inside.any()) else None
    return None


def with_logits(module: nn.Module, chosen: Likelihood, z: Tensor) -> str | None:
    """Takes the softmax or sigmoid off the end of an ONNX graph whose outputs z are probabilities, and says so.

    Changes `module`. None where z are no probabilities, or where the activation is not the node that makes the graph's
    only output.
    """
    activation = applied_activation(chosen, z)
    if activation is None or not isinstance(module, OnnxNetwork):
        return None
    node = module.leave_off(activation)
    if node is None:
        return None
    return f"the {activation.lower()} at the end of the network ({quoted(node)}) is left off: its outputs are logits"


def _guess(z: Tensor, y: Tensor | None) -> tuple[str, str]:
    if y is not None and not y.is_floating_point():
        if z.ndim >= 2 and z.shape[1] == 1 and y.numel() and int(y.max()) <= 1:
            return "bce", "loss: bce, since the targets are 0 and 1 and the model has one output (--loss sets it)"
        return "cross-entropy", "loss: cross-entropy, since the targets are whole numbers (--loss sets it)"
    if y is not None:
        return "mse", "loss: mse (½‖z − y‖²), since the targets are real numbers (--loss sets it)"
    if z.ndim == 2 and z.shape[1] > 1:
        return (
            "cross-entropy",
            f"loss: cross-entropy is assumed for {z.shape[1]} outputs without targets (--loss sets it)",
        )
    raise DataError(
        f"the model's output has shape {tuple(z.shape)} and there are no targets",
        "the loss cannot be guessed",
        "give --loss",
    )
