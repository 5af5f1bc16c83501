"""FOP, S-HD and PP-HD: preconditioners learned beside the weights (FOP, Alg. 1)."""
