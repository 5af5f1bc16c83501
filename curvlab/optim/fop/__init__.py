"""FOP, S-HD and PP-HD: preconditioners learned beside the weights (fop Alg. 1)."""
