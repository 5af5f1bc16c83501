"""Adapters of torch functions with parameters among their arguments, as layers/ has them of modules."""
