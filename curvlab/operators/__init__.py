"""Symmetric positive semi-definite operators and the functions registered for them; import from the modules.

Nothing is imported here: the modules use `curvlab.analyses.results`, and the statistics use `curvlab.linalg.gram`.
"""
