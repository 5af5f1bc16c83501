"""Layers: the affine maps that modules are made of."""
