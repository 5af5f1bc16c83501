"""Layers from the names and shapes of tensors alone, for files that hold weights only."""
