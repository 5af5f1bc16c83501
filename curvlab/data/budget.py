"""How much memory reading data may take, checked against declared sizes before anything is allocated."""

from __future__ import annotations

import os

from curvlab.errors import MemoryBudgetError


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
