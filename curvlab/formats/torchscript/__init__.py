"""TorchScript archives: weights without running anything, the network with `--trust`."""
