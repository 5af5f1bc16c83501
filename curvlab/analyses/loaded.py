"""What a caller may give as the model: a checkpoint, a network in memory, or a path."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from curvlab.errors import CurvlabError
from curvlab.formats.checkpoint import Checkpoint
from curvlab.formats.load import load

Model = Checkpoint | nn.Module | str | Path


def as_checkpoint(given: Model, idle: bool = False) -> Checkpoint:
    """A checkpoint from a path, or from a network in memory; `idle` as in `load`."""
    if isinstance(given, Checkpoint):
        return given
    if isinstance(given, torch.jit.ScriptModule):
        raise CurvlabError("a TorchScript module was given", "it takes no hooks", "give the nn.Module it was made from")
    if isinstance(given, nn.Module):
        if any(is_lazy(p) for p in given.parameters()):
            raise CurvlabError("the model has lazy layers that have not run yet", "", "call it once on some inputs")
        tensors = {name: p.detach() for name, p in given.state_dict().items()}
        shapes = {name: tuple(t.shape) for name, t in tensors.items()}
        return Checkpoint(None, "module", tensors, shapes, (), given, type(given).__qualname__)
    return load(given, idle=idle)
