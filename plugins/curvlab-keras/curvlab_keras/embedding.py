"""Embedding: s = W̄ onehot(x), as torch's own."""

from __future__ import annotations

import keras

from curvlab.layers.embedding import EmbeddingLayer
from curvlab.layers.layer import Layer, adapt
from curvlab_keras.variables import check


@adapt.register
def _(layer: keras.layers.Embedding) -> Layer:
    check(layer, keras.layers.Embedding)
    return EmbeddingLayer(layer.embeddings.value)
