"""MKL_CBWR: the variable that makes matrix products independent of where in memory their operands lie."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

VARIABLE = "MKL_CBWR"
VALUE = "AUTO"
"""The processor's own instructions. `AVX2` would be as good on every processor that has them; `COMPATIBLE` makes large
products two to four times slower (measured on an AMD EPYC with AVX-512, where AUTO cost nothing)."""


def reproducible(environment: MutableMapping[str, str] = os.environ) -> MutableMapping[str, str]:
    """`environment`, with MKL_CBWR=AUTO unless the variable is set already.

    The linear algebra library of torch's builds for x86, Intel's MKL, adds up in an order that depends on the address
    of the operands modulo 64 bytes, unless this variable asks it not to; it reads the variable once, when torch is
    imported. A loaded optimizer state lies at other addresses than the one that was saved, so that without the variable
    a resumed run may differ in the last bits.

    Args:
        environment: this process's, before torch is imported in it; or that of a process to be started.
    """
    environment.setdefault(VARIABLE, VALUE)
    return environment
