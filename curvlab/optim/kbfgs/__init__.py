"""K-BFGS: Kronecker-factored quasi-Newton methods (ren chapters 2 and 3)."""
