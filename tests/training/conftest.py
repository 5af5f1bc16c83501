"""A network of one's own that several tests train."""

from __future__ import annotations

import pytest

NETWORK = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(13, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Dropout(0.3), nn.Linear(12, 3))
"""


@pytest.fixture
def noisy(tmp_path, monkeypatch):
    """A network with batch statistics and dropout: buffers and generators that must be continued."""
    (tmp_path / "noisynet.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    return {"architecture": "noisynet:build", "data": "wine", "batch_size": 26}
