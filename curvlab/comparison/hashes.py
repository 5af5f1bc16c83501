"""sha256 of what runs must share to be comparable: the weights they begin with, and the order of their data."""

from __future__ import annotations

import hashlib

from torch import nn

from curvlab.problems.batches import permutation
from curvlab.training.run import Run


def weights_hash(module: nn.Module) -> str:
    """sha256 over name, type, shape and little-endian bytes of every tensor of `state_dict`, in its order: as hex."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        array = tensor.detach().cpu().numpy()
        array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def data_order_hash(run: Run, epochs: int) -> str:
    """sha256 over the examples' fingerprint, the cut into batches, and the permutations of the first epochs: as hex.

    The permutations are computed again, by the function that the loop draws its batches with: that no optimizer waits
    for it. Nothing but the examples, the batch size and the seed is in them.
    """
    count, last = len(run.train_part), run.last
    digest = hashlib.sha256(f"{run.task.fingerprint} {count} {run.batch_size} {last}".encode())
    for epoch in range(epochs):
        digest.update(permutation(count, epoch, run.settings.seed).numpy().astype("<i8").data)
    return digest.hexdigest()
