"""Optimizers that exist for one test."""

from __future__ import annotations

import pytest

from curvlab.optim import OPTIMIZERS
from curvlab.optim.catalogue import catalogue


@pytest.fixture
def joining():
    """A way for optimizers to join by name, until the test is over."""
    added = []

    def join(name, kind):
        OPTIMIZERS[name] = kind
        added.append(name)
        catalogue.cache_clear()

    yield join
    for name in added:
        del OPTIMIZERS[name]
    catalogue.cache_clear()
