"""Numbers too small to matter set to zero: subnormal ones make a matrix product several times slower on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from curvlab.shapes import Float


def flushed(x: Float[Tensor, "*shape"], below: float | None = None) -> Float[Tensor, "*shape"]:
    """x with zero for every |x| < `below`, in place.

    Args:
        x: altered.
        below: None is the smallest normal number. The square root of that keeps products of two entries normal too.
    """
    return x.masked_fill_(x.abs() < (torch.finfo(x.dtype).tiny if below is None else below), 0.0)
