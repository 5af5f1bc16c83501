"""PyTorch checkpoints of both formats: what training scripts save, read back as named weights."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from formats.torch_saving import FORMATS, network, save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from curvlab.errors import CheckpointError, MemoryBudgetError
from curvlab.formats.load import load


def test_a_state_dict(format_name: str, tmp_path: Path) -> None:
    module = network()
    checkpoint = load(save(module.state_dict(), tmp_path / "m.pt", format_name))
    assert checkpoint.format == format_name
    assert [(layer.name, layer.kind) for layer in checkpoint.layers] == [
        ("conv", "Conv2d"),
        ("bn", "BatchNorm"),
        ("fc", "Linear"),
    ]
    assert list(checkpoint.tensors) == list(module.state_dict())
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in module.state_dict().items())
    assert {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()} == checkpoint.shapes


# What a training script may wrap the weights in, and the names that must come out.
WRAPPED: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "state_dict": (lambda w: {"state_dict": w, "epoch": 3}, "state_dict"),
    "model_state_dict": (lambda w: {"model_state_dict": w, "loss": 0.1}, "model_state_dict"),
    "model_state": (lambda w: {"step": 1, "model_state": w}, "model_state"),
    "model": (lambda w: {"model": w, "args": {"lr": 0.1}}, "model"),
    "net": (lambda w: {"net": w, "acc": 0.9}, "net"),
    "module": (lambda w: {"module": w}, "module"),
    "weights": (lambda w: {"weights": w}, "weights"),
    "nested": (lambda w: {"model": {"state_dict": w}}, "state_dict"),
    "averaged weights win": (lambda w: {"params": {"fc.weight": torch.ones(1, 1)}, "params_ema": w}, "params_ema"),
    "a lone dictionary": (lambda w: {"anything": w, "epoch": 3}, "anything"),
    "one dictionary beside an optimizer": (
        lambda w: {"mine": w, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}},
        "mine",
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_weights(name: str, format_name: str, tmp_path: Path) -> None:
    wrap, key = WRAPPED[name]
    weights = {"fc.weight": torch.randn(4, 3), "fc.bias": torch.randn(4)}
    checkpoint = load(save(wrap(weights), tmp_path / "m.ckpt", format_name))
    assert [(layer.name, layer.kind) for layer in checkpoint.layers] == [("fc", "Linear")]
    assert any(f"weights taken from '{key}'" in note for note in checkpoint.notes)


def test_a_whole_training_state(format_name: str, tmp_path: Path) -> None:
    module = network()
    optimizer = torch.optim.Adam(module.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    scheduler.step()
    content = {
        "epoch": 1,
        "model_state_dict": module.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng_state": torch.get_rng_state(),
    }
    checkpoint = load(save(content, tmp_path / "m.pt", format_name))
    assert set(checkpoint.tensors) == set(module.state_dict())


def test_nested_parts_are_joined_with_dots_and_optimizers_left_out(format_name: str, tmp_path: Path) -> None:
    content = {
        "encoder": {"fc.weight": torch.randn(4, 3), "fc.bias": torch.randn(4)},
        "decoder": {"fc": {"weight": torch.randn(3, 4)}},
        "optimizer": {"state": {0: {"exp_avg": torch.randn(4, 3)}}, "param_groups": [{"lr": 0.1}]},
    }
    checkpoint = load(save(content, tmp_path / "m.pt", format_name))
    assert list(checkpoint.tensors) == ["encoder.fc.weight", "encoder.fc.bias", "decoder.fc.weight"]
    assert any("left out, not weights: 'optimizer'" in note for note in checkpoint.notes)


def test_a_list_of_tensors(format_name: str, tmp_path: Path) -> None:
    checkpoint = load(save([torch.randn(4, 3), torch.randn(4)], tmp_path / "m.pt", format_name))
    assert list(checkpoint.tensors) == ["0", "1"]


PREFIXED: dict[str, Callable[[nn.Module], dict[str, Tensor]]] = {
    "data parallel": lambda m: nn.DataParallel(m).state_dict(),
    "compiled": lambda m: {f"_orig_mod.{name}": tensor for name, tensor in m.state_dict().items()},
    "both": lambda m: {f"module._orig_mod.module.{name}": tensor for name, tensor in m.state_dict().items()},
    "compiled inside": lambda m: {
        name.replace("fc.", "fc._orig_mod."): tensor for name, tensor in m.state_dict().items()
    },
    "averaged": lambda m: AveragedModel(m).state_dict(),
}


@pytest.mark.parametrize("name", PREFIXED)
def test_prefixes(name: str, format_name: str, tmp_path: Path) -> None:
    module = network()
    checkpoint = load(save(PREFIXED[name](module), tmp_path / "m.pt", format_name))
    assert set(module.state_dict()) <= set(checkpoint.tensors) <= {*module.state_dict(), "n_averaged"}


def test_a_part_that_is_called_module_keeps_its_name(tmp_path: Path) -> None:
    weights = {"module.weight": torch.randn(4, 3), "head.weight": torch.randn(2, 4)}
    assert list(load(save(weights, tmp_path / "m.pt", "torch-zip")).tensors) == list(weights)


def test_tied_weights_stand_once(format_name: str, tmp_path: Path) -> None:
    weight = torch.randn(7, 3)
    content = {"embed.weight": weight, "fc.bias": torch.randn(2), "head.weight": weight, "part": weight[:2]}
    checkpoint = load(save(content, tmp_path / "m.pt", format_name))
    assert dict(checkpoint.aliases) == {"head.weight": "embed.weight"}
    assert list(checkpoint.tensors) == ["embed.weight", "fc.bias", "part"]
    assert any("head.weight = embed.weight" in note for note in checkpoint.notes)


def test_views_transposes_and_empty_tensors(format_name: str, tmp_path: Path) -> None:
    base = torch.randn(6, 5)
    content = {"a.weight": base.T, "b.weight": base[1:3, ::2], "c.weight": torch.zeros(0, 4), "d": torch.tensor(3.0)}
    content["e"] = torch.ones(1).expand(5)
    checkpoint = load(save(content, tmp_path / "m.pt", format_name))
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in content.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.uint16])
def test_element_types(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = (torch.rand(4, 3) * 9).to(dtype)
    checkpoint = load(save({"fc.weight": tensor, "o.weight": torch.ones(2, 2)}, tmp_path / "m.pt", "torch-zip"))
    read = checkpoint.tensors["fc.weight"]
    assert read.dtype == dtype
    assert torch.equal(read.view(torch.uint8), tensor.view(torch.uint8))


def test_quantised_tensors_are_read_as_the_numbers_they_stand_for(format_name: str, tmp_path: Path) -> None:
    true = torch.randn(4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # deprecated by torch, and still in many files
        whole = torch.quantize_per_tensor(true, 0.1, 3, torch.qint8)
        rows = torch.quantize_per_channel(true, torch.rand(4) + 0.1, torch.zeros(4), 0, torch.qint8)
    checkpoint = load(save({"a.weight": whole, "b.weight": rows}, tmp_path / "m.pt", format_name))
    assert torch.equal(checkpoint.tensors["a.weight"], whole.dequantize())
    assert torch.equal(checkpoint.tensors["b.weight"], rows.dequantize())
    assert checkpoint.dtypes["a.weight"] == "float32"


def test_parameters_and_values_that_are_no_tensors(format_name: str, tmp_path: Path) -> None:
    content = {"fc.weight": nn.Parameter(torch.randn(4, 3)), "names": ["a", "b"], "size": torch.Size([3]), "z": 1 + 2j}
    checkpoint = load(save(content, tmp_path / "m.pt", format_name))
    assert list(checkpoint.tensors) == ["fc.weight"]
    assert not checkpoint.tensors["fc.weight"].requires_grad


def test_an_archive_that_somebody_compressed_again(tmp_path: Path) -> None:
    module = network()
    save(module.state_dict(), tmp_path / "m.pt", "torch-zip")
    with (
        zipfile.ZipFile(tmp_path / "m.pt") as stored,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    checkpoint = load(tmp_path / "small.pt")
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_newer_pickle_protocol_is_followed(protocol: int, format_name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    new = FORMATS[format_name]
    torch.save({"fc.weight": torch.ones(2, 2)}, path, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    assert torch.equal(load(path).tensors["fc.weight"], torch.ones(2, 2))


def test_the_old_format_must_fit_the_memory_allowed(tmp_path: Path) -> None:
    path = save({"fc.weight": torch.ones(64, 64)}, tmp_path / "m.pt", "torch-legacy")
    assert load(path, max_memory=path.stat().st_size).layers
    with pytest.raises(MemoryBudgetError, match="read as a whole"):
        load(path, max_memory=path.stat().st_size - 1)


def test_what_holds_no_weights_says_so(format_name: str, tmp_path: Path) -> None:
    for number, (content, words) in enumerate(
        [
            ({"epoch": 3}, "holds no tensors"),
            (torch.randn(3, 3), "one tensor of shape \\(3, 3\\), not a dictionary"),
            (7, "holds a int"),
            ({"steps": torch.tensor([1, 2, 3])}, "holds no weights"),
        ]
    ):
        with pytest.raises(CheckpointError, match=words):
            load(save(content, tmp_path / f"{number}.pt", format_name))


def test_the_same_content_in_both_formats_gives_the_same_layers(tmp_path: Path) -> None:
    weights = network().state_dict()
    new, old = (load(save(weights, tmp_path / name, name)) for name in FORMATS)
    assert new.layers == old.layers
    assert new.notes == old.notes


def test_a_checkpoint_in_memory_order_is_not_sorted(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"z.weight": torch.ones(2, 2), "a.weight": torch.ones(2, 2)}, buffer)
    (tmp_path / "m.pt").write_bytes(buffer.getvalue())
    assert [layer.name for layer in load(tmp_path / "m.pt").layers] == ["z", "a"]
