"""Importing this module registers the layers; it imports Keras, so `import_hook` imports it only after Keras."""

from __future__ import annotations

import keras

if keras.config.backend() == "torch":  # on other backends Keras' layers are no torch modules
    from curvlab_keras import convolutions, dense, embedding, norms, recurrent

    __all__ = ["convolutions", "dense", "embedding", "norms", "recurrent"]
