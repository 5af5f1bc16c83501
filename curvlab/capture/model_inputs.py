"""The inputs of a model, the call, and the sentence for what the model raises."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.errors import CurvlabError, RecordingFault, UnsupportedLayer

Inputs = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""What a model is called with: one tensor, positional arguments, or keyword arguments."""


def call_model(model: nn.Module, inputs: Inputs) -> Any:
    """model(x), model(*x) or model(**x)."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def named_inputs(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is called with by name: keyword arguments, and what mappings among the positional ones hold."""
    return {key: value for part in (*args, kwargs) if isinstance(part, Mapping) for key, value in part.items()}


def tensors_of(inputs: Any) -> Iterator[Tensor]:
    """The tensors of an input, in their order; those inside of mappings and tuples too."""
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, Mapping | tuple | list):
        for part in inputs.values() if isinstance(inputs, Mapping) else inputs:
            yield from tensors_of(part)


def batch_size(inputs: Inputs) -> int:
    """Number of examples: the length of the first tensor's first axis."""
    for part in tensors_of(inputs):
        if part.ndim:
            return part.shape[0]
    raise UnsupportedLayer("the model's input holds no tensor with an examples axis")


def shapes(inputs: Inputs) -> str:
    """Shapes and types of the tensors, for messages."""
    return ", ".join(f"{tuple(p.shape)} {p.dtype}" for p in tensors_of(inputs))


@contextmanager
def explained(data: str) -> Iterator[None]:
    """What the model raises inside becomes one sentence about `data`: the model is not ours, its answer is the reason.

    Memory that ran out is not about the data, and stays what it is.
    """
    try:
        yield
    except (CurvlabError, RecordingFault, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "can't allocate memory" in str(error):
            raise
        said = str(error).splitlines()[0] if str(error) else "no message"
        why = f"{type(error).__name__}: {said}"
        do = "give inputs of the shape and type the model was trained on"
        raise CurvlabError(f"the model cannot run on {data}", why, do) from error


def eager() -> AbstractContextManager[Any]:
    """Compiled code runs uncompiled inside: what was compiled before hooks were there does not call them."""
    if "torch._dynamo" not in sys.modules:  # importing it takes seconds, and nothing has been compiled without it
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
