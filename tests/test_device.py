"""Names of devices: those of this machine are taken, of others it is said what there is."""

from __future__ import annotations

import pytest
import torch

from curvlab.device import pick_device
from curvlab.errors import CurvlabError


@pytest.fixture(params=[0, 1, 4])
def cards(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine with so many CUDA devices."""
    count: int = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return count


def test_devices_by_number(cards: int) -> None:
    for index in range(cards):
        assert pick_device(f"cuda:{index}") == torch.device("cuda", index)
    with pytest.raises(CurvlabError) as caught:
        pick_device("cuda:5")
    why = f": its last CUDA device is cuda:{cards - 1}" if cards else ""
    assert str(caught.value) == f"there is no device 'cuda:5' on this machine{why}; use --device auto"


def test_devices_by_kind(cards: int) -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if cards else "cpu")
    if cards:
        assert pick_device("cuda").type == "cuda"
    else:
        with pytest.raises(CurvlabError, match=r"^there is no device 'cuda' on this machine; use --device auto$"):
            pick_device("cuda")
    with pytest.raises(CurvlabError, match=r"^there is no device 'mps' on this machine; use --device auto$"):
        pick_device("mps")
