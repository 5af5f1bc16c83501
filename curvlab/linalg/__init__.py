"""Linear algebra on plain tensors and stacks of matrices, with no knowledge of operators, layers or optimizers."""
