"""K-BFGS: Kronecker-factored quasi-Newton methods (Ren 2022, chapters 2 and 3)."""
