"""Files of PyTorch with foreign classes, and bare pickles: the tensors are read, the rest stays closed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formats.torch_saving import network, save
from torch import Tensor, nn

from curvlab.formats.load import load


def test_a_pickled_network_stays_closed_and_gives_its_tensors(format_name: str, tmp_path: Path) -> None:
    module = network()
    module.register_buffer("passing", torch.ones(2), persistent=False)
    checkpoint = load(save(module, tmp_path / "m.pt", format_name))
    assert list(checkpoint.tensors) == list(module.state_dict())
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in module.state_dict().items())
    assert checkpoint.module is None
    assert any("'torch.nn.modules." in note and "not opened" in note for note in checkpoint.notes)


def test_foreign_classes_are_named_and_left_closed(format_name: str, tmp_path: Path) -> None:
    import argparse

    content = {"state_dict": {"fc.weight": torch.ones(2, 2)}, "args": argparse.Namespace(lr=0.1)}
    checkpoint = load(save(content, tmp_path / "m.pt", format_name))
    assert torch.equal(checkpoint.tensors["fc.weight"], torch.ones(2, 2))
    assert any("calls for 'argparse.Namespace'" in note for note in checkpoint.notes)


RECOVERED: dict[str, Callable[[], Any]] = {
    "transposed and shared": lambda: _shared(),
    "half precision": lambda: {"w": torch.randn(3, 2).bfloat16(), "v": torch.randn(3).half(), "u": torch.tensor(True)},
    "eight bits": lambda: {"w": torch.randn(4, 4).to(torch.float8_e4m3fn)},
    "empty and scalar": lambda: {"w": torch.zeros(0, 4), "s": torch.tensor(3.0), "i": torch.arange(4)},
    "parameters": lambda: {"w": nn.Parameter(torch.randn(2, 2)), "nested": {"v": torch.randn(3)}},
}


def _shared() -> dict[str, Tensor]:
    base = torch.randn(6, 5)
    return {"a": base.T, "b": base[1:3, ::2], "c": base}


@pytest.mark.parametrize("name", RECOVERED)
def test_recovered_tensors_are_those_that_torch_reads(name: str, format_name: str, tmp_path: Path) -> None:
    """The same content with and without a foreign class: the inert road and torch's own give the same numbers."""
    import argparse

    content = RECOVERED[name]()
    wanted = load(save({"model": content, "more.weight": torch.ones(2, 2)}, tmp_path / "plain.pt", format_name))
    found = load(
        save(
            {"model": content, "more.weight": torch.ones(2, 2), "args": argparse.Namespace()},
            tmp_path / "m.pt",
            format_name,
        )
    )
    assert found.dtypes == wanted.dtypes
    assert dict(found.aliases) == dict(wanted.aliases)
    for key, tensor in wanted.tensors.items():
        assert torch.equal(found.tensors[key].double(), tensor.double())


@pytest.mark.parametrize("protocol", range(6))
def test_bare_pickles_give_their_tensors(protocol: int, tmp_path: Path) -> None:
    module = network()
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "f": np.asfortranarray(np.eye(3)[:2])}
    for number, (content, wanted) in enumerate(
        [
            (module.state_dict(), module.state_dict()),
            (module, module.state_dict()),
            ({"params": arrays, "n": 3}, {key: torch.from_numpy(np.ascontiguousarray(a)) for key, a in arrays.items()}),
        ]
    ):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(pickle.dumps(content, protocol))
        checkpoint = load(path)
        assert checkpoint.format == "pickle"
        assert set(checkpoint.tensors) == set(wanted)
        assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in wanted.items())
