"""Analyses: from a model and data to frozen results."""
