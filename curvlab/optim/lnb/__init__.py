"""LNB: linear neuron boosting (LNB, Alg. 1, 2)."""
