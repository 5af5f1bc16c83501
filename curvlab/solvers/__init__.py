"""Linear solvers on plain tensors and stacks of matrices; they know nothing of operators, layers or optimizers."""
