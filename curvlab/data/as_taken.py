"""A dataset as a network takes it: tokens and the like by keyword with the targets of its kind, all else by its first
layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from curvlab.data.convention import keywords_of
from curvlab.data.dataset import Dataset
from curvlab.data.fit import fit
from curvlab.data.named_inputs import NamedInputs
from curvlab.data.sequence_targets import SequenceTargets, are_tokens
from curvlab.data.tokens import keyword_inputs, tokenised

if TYPE_CHECKING:
    from torch import nn


def as_taken(data: Dataset, module: nn.Module, loss: str = "auto") -> tuple[Dataset, SequenceTargets | None]:
    """The examples with the inputs and targets that `module` is trained on, and what its outputs speak of.

    Whole numbers (n, t) for a network over sequences are its tokens.

    Args:
        data: as it was read.
        module: the network.
        loss: the user's choice, "auto" without; "next-token" makes a network of any kind one over sequences.

    Raises:
        DataError: a token that the embedding has no row for, or no target at all.
    """
    targets = SequenceTargets.of(module, loss)
    if not isinstance(data, NamedInputs) and targets is not None and are_tokens(data.x):
        data = tokenised(data.x, data.y, {}, data.name, data.source, data.notes)
    if not isinstance(data, NamedInputs):
        return fit(data, module), targets
    if data.key != "input_ids":
        data = fit(data, module)
        assert isinstance(data, NamedInputs)
    if data.key != "input_ids" and data.key not in keywords_of(module):
        plain = Dataset(data.name, data.x, data.y, data.source, data.synthetic, data.task, data.notes)
        return fit(plain, module), targets
    inputs, y, notes = keyword_inputs(data, module, loss)
    if not isinstance(inputs, dict):
        return Dataset(data.name, inputs, y, data.source, data.synthetic, data.task, tuple(notes)), targets
    beside = {key: values for key, values in inputs.items() if key != data.key}
    return replace(data, x=inputs[data.key], y=y, beside=beside, notes=tuple(notes)), targets
