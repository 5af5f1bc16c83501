"""Capture: the features and output gradients of every layer while a model runs."""
