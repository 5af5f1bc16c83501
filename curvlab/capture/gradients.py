"""∂h/∂W of a closure's loss h, and ∂h/∂z at the model's output z, in one backward pass."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from curvlab.errors import CurvlabError


def gradients_of(
    name: str,
    loss: Tensor,
    parameters: Mapping[str, Tensor],
    output: Tensor | None = None,
    anchor: Tensor | None = None,
    retain_graph: bool = False,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """(∂h/∂W by parameter name, ∂h/∂z); parameters that the loss does not depend on are left out.

    Args:
        name: of the optimizer, for messages.
        loss: h, with its graph.
        parameters: to differentiate by.
        output: z, if its gradient is wanted.
        anchor: of a tape: asking for its gradient too makes the pass visit every block, whatever parameters there are.
        retain_graph: whether another pass will follow.

    Raises:
        CurvlabError: the closure has called backward, or the model checkpoints in a way that torch cannot
            differentiate so.
    """
    wanted = [*parameters.values(), *(t for t in (output, anchor) if t is not None and t.requires_grad)]
    if not wanted:
        return {}, None
    try:
        found = torch.autograd.grad(loss, wanted, retain_graph=retain_graph, allow_unused=True)
    except RuntimeError as error:
        if "backward through the graph a second time" in str(error):
            raise CurvlabError(
                f"{name}: the closure has called backward", "the optimizer does that", "return the loss only"
            ) from error
        raise
    named = {key: g for key, g in zip(parameters, found, strict=False) if g is not None}
    if len(named) < len(parameters):
        _refuse_reentrant(name, loss)
    strided(name, named)
    at_output = None
    if output is not None and output.requires_grad:
        at_output = found[len(parameters)]
    return named, at_output


def strided(name: str, gradients: Mapping[str, Tensor]) -> None:
    """Raise where a gradient by parameter name is a sparse tensor; `name` is the optimizer's."""
    for parameter, g in gradients.items():
        if g.layout is not torch.strided:
            found = f"{name}: the gradient of {parameter!r} is sparse"
            raise CurvlabError(found, "averages and curvature are of dense ones", "give its embedding sparse=False")


def _refuse_reentrant(name: str, loss: Tensor) -> None:
    """Raise where the loss's graph has a reentrant checkpoint: torch.autograd.grad passes by the parameters in it."""
    queue, seen = [loss.grad_fn], set()
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().startswith("CheckpointFunctionBackward"):
            found = f"{name}: the model has a reentrant checkpoint"
            raise CurvlabError(found, "parameters inside it would have no gradient", "give it use_reentrant=False")
        queue += [following for following, _ in node.next_functions]
