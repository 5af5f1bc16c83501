"""Checkpoint: what a model file holds, in two tiers: named layers always, a runnable module where it allows one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from curvlab.formats.curvlab_file.fop_matrices import FopMatrices


@dataclass(frozen=True)
class InferredLayer:
    """A layer recognised from the names and shapes of its tensors alone.

    Attributes:
        name: the common prefix of its tensors, e.g. `"encoder.0"`.
        kind: the torch class it looks like ("Linear", "Conv2d", "LSTM", "BatchNorm", "LayerNorm/GroupNorm", ...), or
            "buffer" / "parameter" / "packed" for tensors that are not a layer.
        tensors: role ("weight", "bias", "running_mean", "weight_ih_l0", ...) -> full tensor name in the file; the main
            weight, whose shape `shape` is, comes first.
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
        format: a name of `curvlab list formats` ("safetensors", "torch-zip", "curvlab", ...), or "module" when made in
            memory.
        tensors: name -> tensor. Lazy: a tensor is read when it is asked for, and not kept. The order is the network's
            where the file shows it, else the natural order of the names; weights put together from several tensors come
            last.
        shapes: name -> shape, known without reading a tensor.
        layers: what names and shapes say, in the same order.
        module: the runnable network in eval mode, its weights loaded; None when the file has no graph.
        architecture: how `module` was made ("curvlab metadata", "package.module:callable"), or None.
        metadata: strings stored beside the tensors.
        notes: sentences for the user: what was unwrapped, stripped, dropped, why there is no module.
        data: the dataset a curvlab file says it was trained on, or None.
        likelihood: "categorical", "bernoulli", "gaussian" when a curvlab file records it, or None.
        dtypes: name -> element type as torch calls it ("float32"), known without reading a tensor.
        aliases: second name of tied weights -> their name in `tensors`, where they stand once.
        folded: name of a weight put together from parts -> the names of the parts, which are in `tensors` too.
        files: every file read, so that all of them can be hashed.
        fop: the matrices that FOP learned while it trained the network, which are not among `tensors`; None without.
        extra: what a later format has to say.
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
    dtypes: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    folded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    fop: FopMatrices | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where the model's tokenizer and the like may be: the folder it was read from, then that of its base."""
        own = () if self.path is None else (self.path if self.path.is_dir() else self.path.parent,)
        return (*own, *self.extra.get("folders", ()))

    @cached_property
    def sha256(self) -> str | None:
        """SHA-256 of the file in hex, computed when first asked for; of several files, of the list of their hashes."""
        from curvlab.formats.digest import sha256

        return sha256(self.files) if self.files else None
