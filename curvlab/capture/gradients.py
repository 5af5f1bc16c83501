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
        if "heckpoint" in str(error) and ".grad()" in str(error):
            raise CurvlabError(
                f"{name}: the model uses reentrant checkpointing",
                "torch cannot take gradients of chosen tensors through it",
                "call checkpoint(..., use_reentrant=False)",
            ) from error
        raise
    named = {key: g for key, g in zip(parameters, found, strict=False) if g is not None}
    at_output = None
    if output is not None and output.requires_grad:
        at_output = found[len(parameters)]
    return named, at_output
