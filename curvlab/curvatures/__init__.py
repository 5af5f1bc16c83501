"""Curvatures: recipes from features and output gradients to the operators that optimizers precondition with."""
