"""onnx's own small models, exported from PyTorch and written by hand: run through curvlab's importer."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from formats.onnx.node_cases import assert_matches, tensor
from torch import nn

from curvlab.formats.onnx.file import read_onnx
from curvlab.formats.onnx.operators.element_types import NAMES
from curvlab.formats.onnx.running.verified_network import onnx_network

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
MODELS = {
    f"{path.parent.parent.name}/{path.parent.name}": path
    for kind in ("simple", "pytorch-converted", "pytorch-operator")
    for path in sorted((DATA / kind).glob("*/model.onnx"))
}
# Models that give no network -> what the note must say.
WEIGHTS_ONLY = {
    **dict.fromkeys((f"simple/test_gradient_of_add{more}" for more in ("", "_and_mul")), "operator Gradient"),
    **dict.fromkeys((f"simple/test_sequence_model{i}" for i in range(1, 9)), "sequences and optional values"),
    **dict.fromkeys((name for name in MODELS if name.startswith("simple/test_strnorm")), "is no tensor"),
    "pytorch-converted/test_PoissonNLLLLoss_no_reduce": "fixed to batches of 10",
    "pytorch-operator/test_operator_params": "fixed to batches of 2",
}
# Layers that PyTorch exported by themselves -> their module here.
MODULES = {
    "Conv1d": nn.Conv1d,
    "Conv2d": nn.Conv2d,
    "Conv3d": nn.Conv3d,
    "ConvTranspose2d": nn.ConvTranspose2d,
    "BatchNorm1d": nn.BatchNorm1d,
    "BatchNorm2d": nn.BatchNorm2d,
    "BatchNorm3d": nn.BatchNorm3d,
    "Linear": nn.Linear,
    "Embedding": nn.Embedding,
    "PReLU": nn.PReLU,
}


def stored(path: Path) -> torch.Tensor | None:
    proto = onnx.TensorProto()
    proto.ParseFromString(path.read_bytes())
    return tensor(proto) if proto.data_type in NAMES else None


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_onnx_gives_the_outputs_that_stand_beside_it(name: str) -> None:
    path = MODELS[name]
    network = onnx_network(path, read_onnx(path))
    if name in WEIGHTS_ONLY:
        assert network.module is None
        assert WEIGHTS_ONLY[name] in network.notes[0]
        return
    assert network.module is not None, network.notes
    for folder in sorted(path.parent.glob("test_data_set_*")):
        inputs = [stored(folder / f"input_{i}.pb") for i in range(len(list(folder.glob("input_*.pb"))))]
        with torch.no_grad():
            found = network.module(*inputs)
        for i, y in enumerate(found if isinstance(found, tuple) else (found,)):
            proto = onnx.TensorProto()
            proto.ParseFromString((folder / f"output_{i}.pb").read_bytes())
            assert_matches(y, proto)
    layer = next((kind for kind in MODULES if name.startswith(f"pytorch-converted/test_{kind}")), None)
    if layer is not None:
        assert any(isinstance(part, MODULES[layer]) for part in network.module.modules())


def test_there_are_as_many_as_the_test_counts() -> None:
    assert len(MODELS) > 100
    assert set(WEIGHTS_ONLY) <= set(MODELS)
