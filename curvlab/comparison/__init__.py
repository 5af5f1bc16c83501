"""Optimizers beside each other: their directions on the same batches, and their races from the same weights."""
