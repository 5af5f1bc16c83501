"""Layers of a Keras file: what names and shapes say, set right and made surer by the class that the file names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from curvlab.checkpoints.checkpoint import InferredLayer
from curvlab.checkpoints.hdf5_file import KerasStored
from curvlab.checkpoints.keras_layout import plain_class
from curvlab.checkpoints.layer_group import UNIQUE
from curvlab.checkpoints.quoting import escaped
from curvlab.checkpoints.stored import Stored

# Keras' class -> torch's; what is not here keeps the kind that its shapes gave it.
_KINDS = {
    "dense": "Linear",
    **{f"conv{n}d": f"Conv{n}d" for n in (1, 2, 3)},
    **{f"depthwiseconv{n}d": f"Conv{n}d" for n in (1, 2)},
    **{f"separableconv{n}d": f"Conv{n}d" for n in (1, 2)},
    **{f"conv{n}dtranspose": f"ConvTranspose{n}d" for n in (1, 2, 3)},
    "embedding": "Embedding",
    "batchnormalization": "BatchNorm",
    "layernormalization": "LayerNorm",
    "groupnormalization": "GroupNorm",
    "rmsnormalization": "RMSNorm",
    "prelu": "PReLU",
    "normalization": "buffer",
}
_TURNED = "Linear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d LSTM GRU RNN"


def with_keras_evidence(layers: Iterable[InferredLayer], stored: Stored) -> tuple[InferredLayer, ...]:
    """The same layers; those of a Keras file say so, and have the kind of the class that the file names.

    Args:
        layers: as names and shapes tell.
        stored: what the reader found; of any other format, the layers stay as they are.
    """
    if not isinstance(stored, KerasStored):
        return tuple(layers)
    return tuple(_told(layer, stored) for layer in layers)


def _told(layer: InferredLayer, stored: KerasStored) -> InferredLayer:
    paths = [stored.paths[name] for name in layer.tensors.values() if name in stored.paths]
    if not paths:
        return layer
    owner = layer.name.rpartition(".")[0]
    own = layer.name if layer.name in stored.classes else owner
    if layer.kind in ("parameter", "buffer"):
        own = owner
    said = stored.classes.get(own, "")
    kind = _KINDS.get(plain_class(said), "")
    turned = f", in torch's layout (stored as {escaped(paths[0])})" if layer.kind in _TURNED.split() else ""
    if not said:
        known = layer.kind not in ("parameter", "buffer", "packed")
        return replace(layer, evidence=f"{layer.evidence}; written by Keras{turned}") if known else layer
    evidence = f"{layer.evidence}; Keras calls its class {escaped(said)}{turned}"
    if not kind or (layer.kind in ("parameter", "packed") and kind != "buffer"):
        return replace(layer, evidence=evidence)
    return replace(layer, kind=kind, confidence=UNIQUE, evidence=evidence)
