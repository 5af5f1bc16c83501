"""`output_tensor`: the tensor that a likelihood reads, whatever a model returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from curvlab.capture.model_inputs import Inputs, call_model
from curvlab.errors import CurvlabError


def answer(model: nn.Module, inputs: Inputs) -> Tensor:
    """The tensor that a model answers with when it is called with these inputs."""
    return output_tensor(call_model(model, inputs))


def output_tensor(output: Any) -> Tensor:
    """The tensor of a model's output: itself, its `logits`, or the first of a tuple or mapping.

    Raises:
        CurvlabError: there is none.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and output:
        return output_tensor(output.get("logits", next(iter(output.values()))))
    if isinstance(output, tuple | list) and output:
        return output_tensor(output[0])
    if hasattr(output, "logits"):
        return output_tensor(output.logits)
    raise CurvlabError(
        f"the model returned a {type(output).__name__}", "a tensor, or a tuple or mapping of tensors, is needed"
    )
