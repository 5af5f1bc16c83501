"""Checkpoint: what a model file holds, in two tiers: named layers always, a runnable module where the file allows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class InferredLayer:
    """A layer recognised from the names and shapes of its tensors alone.

    Attributes:
        name: the common prefix of its tensors, e.g. `"encoder.0"`.
        kind: the torch class it looks like ("Linear", "Conv2d", "LSTM", "BatchNorm", "LayerNorm/GroupNorm", ...), or "buffer"
            / "parameter" / "packed" for tensors that are not a layer.
        tensors: role ("weight", "bias", "running_mean", "weight_ih_l0", ...) -> full tensor name in the file.
        shape: shape of the main weight, as stored.
        confidence: 0 to 1.
        evidence: one sentence for a person: why this kind ("bias length 20 equals the rows of weight (20, 64)").
        transposed: the stored matrix is (in, out), as in GPT-2's Conv1D.
    """

    name: str
    kind: str
    tensors: Mapping[str, str]
    shape: tuple[int, ...]
    confidence: float
    evidence: str
    transposed: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model file.

    Attributes:
        path: the file or folder.
        format: "safetensors", "safetensors-sharded", "torch-zip", "torch-legacy", "curvlab", or "module" when made in memory.
        tensors: name -> tensor, in the file's order. Lazy: a tensor is read when it is asked for, and not kept.
        shapes: name -> shape, known without reading a tensor.
        layers: what names and shapes say, in the file's natural order.
        module: the runnable network in eval mode, its weights loaded; None when the file has no graph.
        architecture: how `module` was made ("curvlab metadata", "package.module:callable"), or None.
        metadata: strings stored beside the tensors.
        notes: sentences for the user: what was unwrapped, stripped, dropped, why there is no module.
        data: the dataset a curvlab file says it was trained on, or None.
        likelihood: "categorical", "bernoulli", "gaussian" when a curvlab file records it, or None.
    """

    path: Path | None
    format: str
    tensors: Mapping[str, Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    layers: tuple[InferredLayer, ...]
    module: nn.Module | None = None
    architecture: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    data: str | None = None
    likelihood: str | None = None
    sha256: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
