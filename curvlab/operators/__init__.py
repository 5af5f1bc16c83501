"""Symmetric positive semi-definite operators and the functions registered for them; import from the modules.

Nothing is imported here: the statistics use `curvlab.linalg.gram`.
"""
