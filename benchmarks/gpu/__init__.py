"""`python -m benchmarks.gpu`: the numerical tests and the benchmarks of factors and steps, with everything on a GPU."""
