"""The layers curvlab brings: importing this module registers them, as importing a plugin's module registers its own."""

from curvlab.layers import convolution, elementwise, embedding, linear, transposed_convolution

__all__ = ["convolution", "elementwise", "embedding", "linear", "transposed_convolution"]
