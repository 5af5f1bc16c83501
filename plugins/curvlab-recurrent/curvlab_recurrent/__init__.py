"""Importing this package registers nn.LSTM, nn.GRU, nn.RNN and their cells with `curvlab.layers.layer.adapt`."""

from curvlab_recurrent import cells, sequences

__all__ = ["cells", "sequences"]
