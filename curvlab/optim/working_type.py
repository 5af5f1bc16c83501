"""The floating type that statistics and operators of an optimizer have."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor


def working_type(parameters: Iterable[Tensor]) -> torch.dtype:
    """The widest real type of the parameters, and at least float32: half precision has no inverses."""
    return reduce(torch.promote_types, (p.dtype.to_real() for p in parameters), torch.float32)


def widened(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in the working type, or in the complex one as wide."""
    return x.to(torch.promote_types(x.dtype, dtype))
