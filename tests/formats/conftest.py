"""PyTorch's two formats, for every test that takes one."""

from __future__ import annotations

import pytest
from formats.torch_saving import FORMATS


@pytest.fixture(params=FORMATS)
def format_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)
