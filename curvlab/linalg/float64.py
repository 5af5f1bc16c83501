"""Float64 from tensors of any device and dtype, in pieces small enough to keep memory bounded."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from curvlab.linalg.gram import gram
from curvlab.shapes import Float

CHUNK = 2**21
"""Numbers converted at once: 16 MiB of float64."""


def double(x: Tensor) -> Float[Tensor, "*shape"]:
    """x in float64, on the CPU if its device has no float64 (mps); every float8 goes through float32."""
    if x.device.type == "mps":
        x = x.cpu()
    return (x.float() if x.dtype.is_floating_point and x.dtype.itemsize == 1 else x).double()


def pieces(x: Tensor, limit: int = CHUNK) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the groups of x `[g, n, m]` and float64 rows of them, about `limit` numbers at a time.

    A piece holds several whole groups, or some rows of one group; at least one row.
    """
    g, n, m = x.shape
    rows = max(1, limit // max(m, 1))
    groups = max(1, rows // max(n, 1))
    for i in range(0, g, groups):
        for j in range(0, n, rows):
            yield slice(i, i + groups), double(x[i : i + groups, j : j + rows])


def double_gram(x: Tensor, scale: Float[Tensor, " g"] | None = None) -> Float[Tensor, "g m m"]:
    """scale² xᵀx of every group of x `[g, n, m]`, in float64, without a float64 copy of x; scale 1 by default."""
    if x.numel() <= CHUNK:
        return gram(double(x) if scale is None else double(x) * scale[:, None, None])
    total = double(x[:, :0]).new_zeros(x.shape[0], x.shape[2], x.shape[2])
    # At least an eighth of a product at a time, or adding up the products takes as long as making them.
    for groups, rows in pieces(x, max(CHUNK, x.shape[2] ** 2 // 8)):
        total[groups] += gram(rows if scale is None else rows * scale[groups, None, None])
    return total
