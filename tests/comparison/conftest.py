"""Optimizers that exist for one test."""

from __future__ import annotations

import pytest

from curvlab.optim import OPTIMIZERS


@pytest.fixture
def joining():
    """A way for optimizers to join by name, until the test is over."""
    added = []

    def join(name, kind):
        OPTIMIZERS.register(name, kind)
        added.append(name)

    yield join
    for name in added:
        OPTIMIZERS.forget(name)
