"""torch.export archives (.pt2): weights without running anything, the network with `--trust`."""
