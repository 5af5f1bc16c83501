"""One network in every format: the same weights, moments and factors, whichever file it was read from."""

from __future__ import annotations

import contextlib
import io
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import curvlab
from curvlab.analyses.results import Analysis
from curvlab.formats.curvlab_file.file import save as save_own

SHAPE = (3, 6, 6)


def network() -> nn.Sequential:
    parts = [
        ("conv", nn.Conv2d(3, 4, 3, stride=2, padding=1)),
        ("act", nn.Tanh()),
        ("flat", nn.Flatten()),
        ("fc", nn.Linear(36, 12)),
        ("act2", nn.Tanh()),
        ("head", nn.Linear(12, 5)),
    ]
    return nn.Sequential(OrderedDict(parts))


@pytest.fixture(scope="module")
def original() -> nn.Sequential:
    torch.manual_seed(7)
    return network().eval()


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(200, *SHAPE, generator=generator), torch.randint(0, 5, (200,), generator=generator)


Saved = tuple[Path, dict[str, Any]]
BUILD: dict[str, Any] = {"architecture": network}
TRUST: dict[str, Any] = {"trust": True}


@contextlib.contextmanager
def deprecated() -> Iterator[None]:
    """torch's remarks on its own older formats are not under test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _sharded(module: nn.Module, folder: Path) -> Saved:
    state = module.state_dict()
    index = {"metadata": {"total_size": sum(t.nbytes for t in state.values())}, "weight_map": {}}
    for number, names in enumerate((list(state)[:3], list(state)[3:])):
        shard = f"model-{number}.safetensors"
        save_file({name: state[name] for name in names}, folder / shard)
        index["weight_map"] |= dict.fromkeys(names, shard)
    import json

    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder, BUILD


def _file(name: str, options: dict[str, Any], write: Callable[[nn.Module, Path], Any]) -> Callable[..., Saved]:
    def save(module: nn.Module, folder: Path) -> Saved:
        with deprecated():
            write(module, folder / name)
        return folder / name, options

    return save


def _example() -> Tensor:
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))


def _export(module: nn.Module, path: Path, dynamic: bool) -> None:
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    torch.export.save(torch.export.export(module, (_example(),), dynamic_shapes=shapes), path)


def _decomposed(module: nn.Module, path: Path) -> None:
    """Core operators only: linear layers have become matrix products, convolutions one operator."""
    program = torch.export.export(module, (_example(),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program.run_decompositions(), path)


def _onnx(module: nn.Module, path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper, save_model

    named = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["c"], ["t"]),
        helper.make_node("Flatten", ["t"], ["f"]),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["h"], transB=1),
        helper.make_node("Tanh", ["h"], ["u"]),
        helper.make_node("Gemm", ["u", "head.weight", "head.bias"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in named.items()],
    )
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def _buffered(module: nn.Module, legacy: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[nn.Module, Path], Saved]] = {
    "curvlab": _file("m.safetensors", {}, lambda m, p: save_own(p, m)),
    "safetensors": _file("m.safetensors", BUILD, lambda m, p: save_file(m.state_dict(), p)),
    "safetensors-sharded": _sharded,
    "torch-zip": _file("m.pt", BUILD, lambda m, p: p.write_bytes(_buffered(m, legacy=False))),
    "torch-legacy": _file("m.pth", BUILD, lambda m, p: p.write_bytes(_buffered(m, legacy=True))),
    "torch-zip, whole network": _file("m.pt", BUILD, lambda m, p: torch.save(m, p)),
    "pickle": _file("m.pkl", BUILD, lambda m, p: p.write_bytes(pickle.dumps(m.state_dict()))),
    "pickle, whole network": _file("m.pkl", BUILD, lambda m, p: p.write_bytes(pickle.dumps(m))),
    "torchscript": _file("m.pt", TRUST, lambda m, p: torch.jit.save(torch.jit.script(m), p)),
    "torchscript, traced": _file("m.pt", TRUST, lambda m, p: torch.jit.save(torch.jit.trace(m, _example()), p)),
    "torchscript, frozen": _file("m.pt", TRUST, lambda m, p: torch.jit.save(torch.jit.freeze(torch.jit.script(m)), p)),
    "torchscript, weights": _file("m.pt", BUILD, lambda m, p: torch.jit.save(torch.jit.script(m), p)),
    "pt2": _file("m.pt2", TRUST, lambda m, p: _export(m, p, dynamic=True)),
    "pt2, of two examples": _file("m.pt2", TRUST, lambda m, p: _export(m, p, dynamic=False)),
    "pt2, decomposed": _file("m.pt2", TRUST, _decomposed),
    "pt2, weights": _file("m.pt2", BUILD, lambda m, p: _export(m, p, dynamic=True)),
    "onnx": _file("m.onnx", {}, _onnx),
}


def profile(given: Any, data: tuple[Tensor, Tensor]) -> Analysis:
    return curvlab.analyze(given, data, loss="cross-entropy", fisher_type="empirical", dtype="float64")


@pytest.fixture(scope="module")
def wanted(original: nn.Sequential, data: tuple[Tensor, Tensor]) -> Analysis:
    return profile(original, data)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_numbers(
    name: str, original: nn.Sequential, data: tuple[Tensor, Tensor], wanted: Analysis, tmp_path: Path
) -> None:
    path, options = FORMATS[name](original, tmp_path)
    checkpoint = curvlab.load(path, **options)
    assert checkpoint.format == name.split(",")[0]
    assert checkpoint.module is not None, checkpoint.notes
    found = profile(checkpoint, data)
    assert found.coverage.analyzed == found.coverage.parameters == wanted.coverage.parameters
    assert [layer.kind for layer in found.layers] == ["Conv2d", "Linear", "Linear"]
    for ours, theirs in zip(found.layers, wanted.layers, strict=True):
        ours_numbers, theirs_numbers = numbers(ours.weights), numbers(theirs.weights)
        assert ours_numbers == pytest.approx(theirs_numbers, rel=1e-6, nan_ok=True)
        for part in ("moments", "kfac", "tnt"):
            mine, other = numbers(getattr(ours, part)), numbers(getattr(theirs, part))
            assert len(other) > 5
            assert mine == pytest.approx(other, rel=1e-4, abs=1e-9)


def numbers(result: Any) -> list[float]:
    """All measured numbers of a result, in the order of its fields; standard errors left out."""
    import dataclasses

    plain = dataclasses.asdict(result)
    found: list[float] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key not in ("stderr", "note", "normalization"):
                    walk(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append(float(value))

    walk(plain)
    return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("name", ["safetensors", "torch-zip", "torch-legacy", "curvlab"])
def test_narrow_numbers_are_analysed_in_float32(
    name: str, dtype: torch.dtype, original: nn.Sequential, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """The profile of a file in eight or sixteen bits is that of the network with its numbers widened."""
    state = {key: tensor.to(dtype) for key, tensor in original.state_dict().items()}
    wide = network().eval()
    wide.load_state_dict({key: tensor.float() for key, tensor in state.items()})
    path = tmp_path / "m"
    options = BUILD
    if name == "safetensors":
        save_file(state, path)
    elif name == "curvlab":
        narrow = network()
        narrow.load_state_dict(state, assign=True)
        save_own(path, narrow)
        options = {}
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "torch-zip")
    checkpoint = curvlab.load(path, **options)
    assert set(checkpoint.dtypes.values()) == {str(dtype).removeprefix("torch.")}
    found, expected = (
        curvlab.analyze(given, data, loss="cross-entropy", analyses=("weights", "moments", "kfac"))
        for given in (checkpoint, wide)
    )
    assert found.settings["dtype"] == "float32"
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        assert numbers(ours.weights) == pytest.approx(numbers(theirs.weights), rel=1e-6)
        assert numbers(ours.kfac) == pytest.approx(numbers(theirs.kfac), rel=1e-6)
