"""Capture: what a model does on data, shown map by map."""
