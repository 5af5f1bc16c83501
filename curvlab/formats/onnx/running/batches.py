"""Whether a graph takes batches of any size: exporters bake the size of their example into reshapes, and such a graph
mixes the examples of a larger batch without an error."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from curvlab.errors import CurvlabError
from curvlab.formats.graph_answers import interleaved, other_examples
from curvlab.formats.onnx.running.budget import Budget, TooMuch
from curvlab.formats.onnx.running.network import OnnxNetwork
from curvlab.formats.onnx.running.verification import NotTrusted, Reference, Trial, agreement

_ADVICE = "export it with the examples on a dynamic first axis"


def unchecked_batches(network: OnnxNetwork, tried: Trial, budget: Budget) -> str | None:
    """f([a, b]) = [f(a), f(b)] for a, b of the size that was tried: None where it holds, or why it was not looked at.

    Args:
        network: agrees with a reference on the inputs that were tried.
        tried: inputs, and the shapes of all values.
        budget: for the larger batch.

    Raises:
        NotTrusted: the graph cannot run on the larger batch, or answers it otherwise than its parts.
    """
    if next(network.parameters(), None) is None:
        return None  # there is nothing to take curvature of: no data will be run through it
    said = "larger batches were not compared with their parts"
    size = _examples(network, tried)
    if size is None:
        return f"{said}: not all inputs and outputs have the examples on their first axis"
    some = dict(tried.inputs)
    more = other_examples(some, size)
    joined = interleaved(some, more, size)
    free = not isinstance((network.inputs[0].shape or (None,))[0], int)
    fixed = f"the graph is fixed to batches of {'one size' if free else size}"
    try:
        apart = [_outputs(network, part, budget) for part in (some, more)]
        _outputs(network, joined, budget)  # what it costs is known before it is compared, which has no budget
    except TooMuch as refusal:
        return f"{said}: {refusal}"
    except CurvlabError as error:
        raise NotTrusted(fixed, f"it fails on {2 * size} examples ({error})", _ADVICE) from error
    wanted = [torch.cat([a, b]).roll(1, 0).numpy() for a, b in zip(*apart, strict=True)]
    try:
        agreement(network, Reference("its parts", wanted), joined)
    except NotTrusted as error:
        raise NotTrusted(
            fixed,
            f"it answers {2 * size} examples otherwise than {size} at a time",
            _ADVICE,
        ) from error
    return None


def _examples(network: OnnxNetwork, tried: Trial) -> int | None:
    """How many were tried, where the first axis of every input and output is theirs; a vector of a given length is one
    example without such an axis."""
    first = {value.shape[0] if value.shape else None for value in network.inputs}
    sizes = {x.shape[:1] for x in tried.inputs.values()} | {tried.shapes.get(v.name, ())[:1] for v in network.outputs}
    if len(first) != 1 or len(sizes) != 1 or () in sizes:
        return None
    free = not isinstance(next(iter(first)), int)
    if not free and next(iter(first)) != 1 and any(x.ndim == 1 for x in tried.inputs.values()):
        return None
    if free and any(value.shape and isinstance(value.shape[0], int) for value in network.outputs):
        return None
    return int(next(iter(sizes))[0])


def _outputs(network: OnnxNetwork, given: Mapping[str, Tensor], budget: Budget) -> list[Tensor]:
    values: dict[str, Tensor] = {}
    budget.values = values
    try:
        with torch.no_grad(), budget:
            network.run(dict(given), values)
    finally:
        budget.values = {}
    return [values[value.name] for value in network.outputs]
