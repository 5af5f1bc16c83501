"""Importing this package registers nn.MultiheadAttention with `curvlab.layers.layer.adapt`."""

from curvlab_attention import multihead

__all__ = ["multihead"]
