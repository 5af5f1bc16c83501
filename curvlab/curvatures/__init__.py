"""Curvatures: recipes from what a batch shows to the operators that optimizers precondition with."""
