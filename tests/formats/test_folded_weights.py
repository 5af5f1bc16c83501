"""Weights stored in parts, put together again: against torch's own modules, and against packing done by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.inference.infer import infer_layers
from curvlab.formats.load import load


def _old_weight_norm(module: nn.Module, **options: object) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and still in many files
        return nn.utils.weight_norm(module, **options)  # type: ignore[arg-type]


REPARAMETRISED: dict[str, Callable[[], nn.Module]] = {
    "weight norm": lambda: _old_weight_norm(nn.Linear(4, 6)),
    "weight norm of a convolution": lambda: _old_weight_norm(nn.Conv2d(4, 6, 3)),
    "weight norm of a transposed convolution": lambda: _old_weight_norm(nn.ConvTranspose1d(4, 6, 3), dim=1),
    "weight norm over the whole": lambda: _old_weight_norm(nn.Linear(4, 6), dim=None),
    "parametrized weight norm": lambda: parametrizations.weight_norm(nn.Conv1d(4, 6, 3)),
    "spectral norm": lambda: nn.utils.spectral_norm(nn.Linear(4, 6)),
    "spectral norm of a convolution": lambda: nn.utils.spectral_norm(nn.Conv2d(4, 6, 3), n_power_iterations=20),
    "spectral norm of a transposed convolution": lambda: nn.utils.spectral_norm(
        nn.ConvTranspose2d(4, 4, 3), n_power_iterations=20
    ),
    "parametrized spectral norm": lambda: parametrizations.spectral_norm(nn.Conv1d(4, 6, 3), n_power_iterations=20),
    "pruning": lambda: prune.random_unstructured(nn.Linear(4, 6), "weight", amount=7),
}


@pytest.mark.parametrize("name", REPARAMETRISED)
def test_the_weight_is_the_one_that_torch_uses(name: str, tmp_path: Path) -> None:
    module = REPARAMETRISED[name]()
    shape = (2, 4) if isinstance(module, nn.Linear) else (2, 4, *(5,) * (module.weight.ndim - 2))
    with torch.no_grad():
        module(torch.randn(shape))  # a step of the power iteration, and of the hooks
        module.eval()
        module(torch.randn(shape))
    path, part = tmp_path / "parts.pt", "deconv" if "transposed" in name else "layer"
    torch.save({f"{part}.{key}": value for key, value in module.state_dict().items()}, path)
    checkpoint = load(path)
    (layer,) = checkpoint.layers
    assert layer.kind == type(module).__name__.removeprefix("Parametrized")
    assert layer.tensors == {"weight": f"{part}.weight", "bias": f"{part}.bias"}
    assert checkpoint.shapes[f"{part}.weight"] == tuple(module.weight.shape)
    torch.testing.assert_close(checkpoint.tensors[f"{part}.weight"], module.weight.detach())
    assert set(checkpoint.folded[f"{part}.weight"]) <= set(checkpoint.tensors)


def _loaded(path: Path, tensors: dict[str, Tensor]) -> tuple[Tensor, str]:
    save_file(tensors, path)
    checkpoint = load(path)
    (layer,) = [layer for layer in checkpoint.layers if "weight" in layer.tensors and layer.kind == "Linear"]
    weight = checkpoint.tensors[layer.tensors["weight"]]
    assert checkpoint.shapes[layer.tensors["weight"]] == tuple(weight.shape)
    assert checkpoint.dtypes[layer.tensors["weight"]] == "float32"
    return weight, layer.tensors["weight"]


def test_low_rank_update_is_merged_with_its_scale(tmp_path: Path) -> None:
    base, down, up = torch.randn(6, 4), torch.randn(2, 4), torch.randn(6, 2)
    tensors = {
        "l.weight": base,
        "l.lora_down.weight": down,
        "l.lora_up.weight": up,
        "l.alpha": torch.tensor(16.0),
    }
    weight, name = _loaded(tmp_path / "lora.safetensors", tensors)
    assert name == "l.weight.folded"  # the stored base keeps its own name
    torch.testing.assert_close(weight, base + 8 * up @ down)


def test_low_rank_update_without_scale_stays_beside_its_base(tmp_path: Path) -> None:
    base, down, up = torch.randn(6, 4), torch.randn(2, 4), torch.randn(6, 2)
    save_file({"l.base_layer.weight": base, "l.lora_A.weight": down, "l.lora_B.weight": up}, tmp_path / "m")
    checkpoint = load(tmp_path / "m")
    assert [layer.name for layer in checkpoint.layers] == ["l.base_layer", "l.lora_update"]
    torch.testing.assert_close(checkpoint.tensors["l.base_layer.weight"], base)
    torch.testing.assert_close(checkpoint.tensors["l.lora_update.weight"], up @ down)


@pytest.mark.parametrize("with_base", [False, True])
def test_low_rank_update_with_a_scale_of_its_configuration(with_base: bool) -> None:
    base, down, up = torch.randn(6, 4), torch.randn(2, 4), torch.randn(6, 2)
    tensors = {"l.lora_A.weight": down, "l.lora_B.weight": up}
    if with_base:
        tensors["l.base_layer.weight"] = base
    specs = {name: TensorSpec(tuple(tensor.shape), "float32") for name, tensor in tensors.items()}
    asked = []

    def scale(layer: str, rank: int) -> float:
        asked.append((layer, rank))
        return 2.5

    found = infer_layers(specs, tensors, scale=scale)
    ((name, fold),) = found.folds.items()
    assert asked == [("l", 2)]
    assert name == ("l.weight" if with_base else "l.lora_update.weight")
    weight = fold.compute(*(tensors[source] for source in fold.sources))
    torch.testing.assert_close(weight, 2.5 * up @ down + (base if with_base else 0))
    assert any("alpha/r = 2.5 of adapter_config.json" in layer.evidence for layer in found.layers)


def test_low_rank_update_of_a_convolution(tmp_path: Path) -> None:
    down, up = torch.randn(2, 4, 3, 3), torch.randn(6, 2, 1, 1)
    save_file({"c.lora_down.weight": down, "c.lora_up.weight": up, "c.alpha": torch.tensor(2.0)}, tmp_path / "m")
    checkpoint = load(tmp_path / "m")
    x = torch.randn(1, 4, 5, 5)
    one_by_one = nn.functional.conv2d(nn.functional.conv2d(x, down), up)
    merged = nn.functional.conv2d(x, checkpoint.tensors["c.lora_update.weight"])
    torch.testing.assert_close(merged, one_by_one, atol=1e-5, rtol=1e-5)


def test_integers_with_a_scale_for_each_row(tmp_path: Path) -> None:
    q, scale = torch.randint(-127, 128, (6, 4), dtype=torch.int8), torch.rand(6, 1)
    weight, _ = _loaded(tmp_path / "m", {"l.weight": q, "l.weight_scale": scale})
    torch.testing.assert_close(weight, q.float() * scale)


def test_integers_with_a_zero_point(tmp_path: Path) -> None:
    q, scale = torch.randint(-127, 128, (6, 4), dtype=torch.int8), torch.rand(6)
    zero = torch.randint(-5, 5, (6,), dtype=torch.int8)
    tensors = {"l.weight": q, "l.weight_scale": scale, "l.weight_zero_point": zero}
    weight, _ = _loaded(tmp_path / "m", tensors)
    torch.testing.assert_close(weight, (q.float() - zero[:, None]) * scale[:, None])


def test_bitsandbytes_rows_reach_their_stored_maximum(tmp_path: Path) -> None:
    true = torch.randn(6, 4)
    most = true.abs().amax(1)
    q = (true / most[:, None] * 127).round().to(torch.int8)
    weight, _ = _loaded(tmp_path / "m", {"l.weight": q, "l.SCB": most})
    torch.testing.assert_close(weight, true, atol=float(most.max()) / 254 + 1e-6, rtol=0)
    torch.testing.assert_close(weight.abs().amax(1), most)


def test_quanto_names(tmp_path: Path) -> None:
    q, scale = torch.randint(-127, 128, (6, 4), dtype=torch.int8), torch.rand(6, 1)
    weight, name = _loaded(tmp_path / "m", {"l.weight._data": q, "l.weight._scale": scale})
    assert name == "l.weight"
    torch.testing.assert_close(weight, q.float() * scale)


def test_eight_bit_floats_with_block_scales(tmp_path: Path) -> None:
    q, scale = torch.randn(300, 200).to(torch.float8_e4m3fn), torch.rand(3, 2)
    weight, _ = _loaded(tmp_path / "m", {"l.weight": q, "l.weight_scale_inv": scale})
    for row, column in ((0, 0), (127, 127), (128, 127), (299, 199)):
        expected = q.float()[row, column] * scale[row // 128, column // 128]
        torch.testing.assert_close(weight[row, column], expected)


def _gptq(values: np.ndarray, bits: int) -> Tensor:
    """(i, o) values packed along the inputs, 32/bits in each integer, by shifting one after the other."""
    each = 32 // bits
    packed = np.zeros((values.shape[0] // each, values.shape[1]), dtype=np.uint32)
    for index in range(values.shape[0]):
        packed[index // each] |= values[index].astype(np.uint32) << np.uint32(bits * (index % each))
    return torch.from_numpy(packed.view(np.int32))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("stored_less_one", [True, False])
def test_symmetric_gptq(bits: int, stored_less_one: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs, outputs, group = 64, 32, 16
    q = rng.integers(0, 2**bits, (inputs, outputs))
    scales = rng.random((inputs // group, outputs), dtype=np.float32)
    groups = torch.arange(inputs, dtype=torch.int32) // group
    middle = 2 ** (bits - 1)
    zeros = np.full((inputs // group, outputs), middle - 1 if stored_less_one else middle)
    tensors = {
        "l.qweight": _gptq(q, bits),
        "l.qzeros": _gptq(zeros.T, bits).T.contiguous(),
        "l.scales": torch.from_numpy(scales).half(),
        "l.g_idx": groups,
        "l.bias": torch.zeros(outputs),
    }
    weight, _ = _loaded(tmp_path / "m", tensors)
    expected = (q - middle) * scales.astype(np.float16).astype(np.float32)[groups.numpy()]
    torch.testing.assert_close(weight, torch.from_numpy(expected.T).float())


def test_asymmetric_gptq_stays_packed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        "l.qweight": _gptq(rng.integers(0, 16, (64, 32)), 4),
        "l.qzeros": _gptq(rng.integers(0, 16, (32, 4)), 4).T.contiguous(),
        "l.scales": torch.rand(4, 32),
        "l.g_idx": torch.arange(64, dtype=torch.int32) // 16,
    }
    save_file(tensors, tmp_path / "m")
    (layer,) = load(tmp_path / "m").layers[:1]
    assert layer.kind == "packed"


def test_folded_weights_are_computed_again_each_time_and_kept_out_of_memory(tmp_path: Path) -> None:
    module = parametrizations.weight_norm(nn.Linear(4, 6))
    torch.save(module.state_dict(), tmp_path / "m.pt")
    tensors = load(tmp_path / "m.pt").tensors
    first = tensors["weight"]
    first.zero_()
    torch.testing.assert_close(tensors["weight"], module.weight.detach())
