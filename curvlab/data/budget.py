"""How much memory reading data may take, checked against declared sizes before anything is allocated."""

from __future__ import annotations

import os

from curvlab.errors import DataError, MemoryBudgetError

MAX_EXPANSION = 100
"""Bytes of an array to a compressed byte in the file, where the array is larger than `FREE_EXPANSION_BYTES`."""
FREE_EXPANSION_BYTES = 2**26


def within(needed: int, limit: int | None, what: str) -> None:
    """Do nothing when `needed` bytes fit into `limit` bytes (None: the machine's memory).

    Raises:
        MemoryBudgetError: naming both sizes.
    """
    allowed = physical_memory() if limit is None else limit
    if needed > allowed:
        whose = "this machine has" if limit is None else "the limit (max_memory) is"
        do = "use fewer or smaller examples" if limit is None else "raise the limit, or use fewer or smaller examples"
        raise MemoryBudgetError(f"{what} needs {needed:,} bytes in memory", f"{whose} {allowed:,}", do)


def physical_memory() -> int:
    """Bytes of memory in the machine; 2^40 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**40


def check_expansion(needed: int, stored: int, what: str) -> None:
    """Do nothing when `stored` compressed bytes may be unpacked to `needed` ones.

    Raises:
        DataError: they are more than measured data comes to, as in a compression bomb.
    """
    if needed > max(FREE_EXPANSION_BYTES, MAX_EXPANSION * stored):
        raise DataError(
            f"{what} would be unpacked from {stored:,} to {needed:,} bytes",
            f"more than {MAX_EXPANSION} bytes from one are refused, as a compression bomb has",
            "store it uncompressed (numpy.savez) if it is none",
        )
