"""LNB: linear neuron boosting (lnb Alg. 1, 2)."""
