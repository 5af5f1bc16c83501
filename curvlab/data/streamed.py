"""Rows of an array that comes as a stream of bytes: the drawn ones are kept, the others are passed over."""

from __future__ import annotations

import math
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gzip

    import numpy as np
    from torch import Tensor

PIECE = 2**24
"""Bytes that are read at once."""


def kept_rows(
    file: IO[bytes] | gzip.GzipFile,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    rows: Tensor | None,
    *,
    fortran: bool = False,
) -> np.ndarray[Any, Any] | None:
    """The array (n, ...) that the next bytes hold, its `rows` alone unless they are None; None when bytes are missing.

    Memory holds what is kept and one piece of the stream. In C's order the stream is n lines, one an example; in
    Fortran's it is a line of n numbers for each number of an example.
    """
    import numpy as np

    count, size = (shape[0], math.prod(shape[1:])) if shape else (1, 1)
    lines, width = (size, count) if fortran else (count, size)
    kept = None if rows is None else rows.numpy()
    number = count if kept is None else len(kept)
    made = np.empty((lines, number) if fortran else (number, width), dtype)
    for begin in range(0, lines if width else 0, at_once := max(1, PIECE // max(1, width * dtype.itemsize))):
        end = min(begin + at_once, lines)
        content = file.read((end - begin) * width * dtype.itemsize)
        if len(content) < (end - begin) * width * dtype.itemsize:
            return None
        piece = np.frombuffer(content, dtype).reshape(end - begin, width)
        if kept is None:
            made[begin:end] = piece
        elif fortran:
            made[begin:end] = piece[:, kept]
        else:
            first, last = np.searchsorted(kept, [begin, end])
            made[first:last] = piece[kept[first:last] - begin]
    if not shape:
        return made.reshape(())
    sides = (number, *shape[1:])
    return made.reshape(sides[::-1]).transpose() if fortran else made.reshape(sides)
