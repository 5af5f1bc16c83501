"""Experts that are stored as one tensor are layers of their own, and convolutions stay convolutions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import curvlab
from curvlab.analyses.last_read import LastRead
from curvlab.formats.inference.stacked_experts import find_stacks

E, H, F = 4, 6, 10
MIXTRAL = {"mlp.gate.weight": (E, H), "mlp.experts.gate_up_proj": (E, 2 * F, H), "mlp.experts.down_proj": (E, H, F)}
GPT_OSS = {
    "mlp.router.weight": (E, H),
    "mlp.router.bias": (E,),
    "mlp.experts.gate_up_proj": (E, H, 2 * F),
    "mlp.experts.gate_up_proj_bias": (E, 2 * F),
    "mlp.experts.down_proj": (E, F, H),
    "mlp.experts.down_proj_bias": (E, H),
}
LLAMA4 = {
    "feed_forward.router.weight": (E, H),
    "feed_forward.experts.gate_up_proj": (E, H, 2 * F),
    "feed_forward.experts.down_proj": (E, F, H),
}
GRANITE = {
    "block_sparse_moe.router.layer.weight": (E, H),
    "block_sparse_moe.input_linear.weight": (E, 2 * F, H),
    "block_sparse_moe.output_linear.weight": (E, H, F),
}
WORDS = {"moe.experts.w1": (E, F, H), "moe.experts.w2": (E, H, F), "moe.experts.w3": (E, F, H)}


LLAMA_CPP = {
    "blk.0.ffn_gate_inp.weight": (E, H),
    "blk.0.ffn_gate_exps.weight": (E, F, H),
    "blk.0.ffn_up_exps.weight": (E, F, H),
    "blk.0.ffn_down_exps.weight": (E, H, F),
}


def file_of(shapes: dict[str, tuple[int, ...]], folder: Path) -> tuple[Path, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors", tensors


@pytest.mark.parametrize(
    ("shapes", "transposed"),
    [(MIXTRAL, False), (GPT_OSS, True), (LLAMA4, True), (GRANITE, False), (WORDS, False), (LLAMA_CPP, False)],
    ids=["mixtral", "gpt-oss", "llama4", "granite", "words", "llama.cpp"],
)
def test_each_expert_is_a_layer_with_its_own_numbers(
    shapes: dict[str, tuple[int, ...]], transposed: bool, tmp_path: Path
) -> None:
    path, tensors = file_of(shapes, tmp_path)
    found = curvlab.analyze(curvlab.load(path), analyses=("weights", "quantisation"))
    stacked = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 3}
    rows = {layer.name: layer for layer in found.layers}
    for name, tensor in stacked.items():
        head, _, last = name.removesuffix(".weight").rpartition(".")
        for k in range(E):
            expert = f"{head}.{k}.{last}" if "experts" in name else f"{head}.{last}.{k}"
            layer = rows.pop(expert)
            assert layer.kind == "Linear"
            assert layer.shape == tuple(tensor.shape[1:])
            bias = tensors.get(f"{name}_bias")
            assert layer.parameters == tensor[k].numel() + (0 if bias is None else bias[k].numel())
            s = np.linalg.svd(tensor[k].double().numpy(), compute_uv=False)
            assert layer.weights.spectral_norm == pytest.approx(s[0], rel=1e-6)
            assert layer.weights.condition_number == pytest.approx(s[0] / s[-1], rel=1e-5)
            outputs = tensor[k].T if transposed else tensor[k]
            assert layer.quantisation.weight.worst_row == int(outputs.abs().amax(1).argmax())
    assert all("experts" not in name and "linear" not in name and "exps" not in name for name in rows)
    assert found.coverage.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert found.model["parameters"] == found.coverage.parameters


def test_the_order_is_the_files_own(tmp_path: Path) -> None:
    path, _ = file_of(
        {"a.weight": (3, 3), **{f"b.{name}": s for name, s in MIXTRAL.items()}, "c.weight": (3, 3)}, tmp_path
    )
    names = [layer.name for layer in curvlab.analyze(curvlab.load(path)).layers]
    assert (names[0], names[-1]) == ("a", "c")
    assert names[1 : 1 + E] == [f"b.mlp.experts.{k}.down_proj" for k in range(E)]


@pytest.mark.parametrize(
    "shapes",
    [
        {"conv.weight": (8, 4, 3), "conv.bias": (8,)},
        {"experts.conv1d.weight": (8, 4, 3)},
        {"experts.3.mixer.weight": (8, 4, 3)},
        {"features.weight": (8, 4, 3)},
        {"moe.features.weight": (8, 4, 3)},
        {"moe.convs.0.weight": (8, 4, 3), "moe.convs.1.weight": (8, 4, 3)},
        {"features.weight": (8, 4, 3), "gate.weight": (5, 4)},
    ],
    ids=lambda shapes: next(iter(shapes)),
)
def test_a_convolution_is_no_stack(shapes: dict[str, tuple[int, ...]]) -> None:
    assert find_stacks(shapes) == {}


def test_a_configuration_tells_what_a_name_does_not() -> None:
    shapes = {"moe.features.weight": (8, 4, 3)}
    assert "the configuration has 8 experts" in find_stacks(shapes, {8})["moe.features.weight"].evidence
    assert find_stacks(shapes, {4}) == {}
    beside = {"block.features.weight": (8, 4, 3), "block.router.weight": (8, 4)}
    assert find_stacks(beside) == {}
    assert list(find_stacks(beside, {8})) == ["block.features.weight"]


def test_the_number_of_experts_is_read_from_the_configuration_of_a_folder(tmp_path: Path) -> None:
    file_of({"layers.0.moe.features.weight": (8, 4, 3)}, tmp_path)
    config = {"model_type": "unheard-of", "text_config": {"num_local_experts": 8}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = curvlab.analyze(curvlab.load(tmp_path), analyses=("weights",))
    assert [layer.name for layer in found.layers] == [f"layers.0.moe.features.{k}" for k in range(8)]


class Mixture(nn.Module):
    """A network whose experts are bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate = nn.Linear(H, E, bias=False)
        self.experts = nn.Module()
        self.experts.up_proj = nn.Parameter(torch.randn(E, F, H))
        self.experts.up_proj_bias = nn.Parameter(torch.randn(E, F))
        self.experts.scale = nn.Parameter(torch.randn(H))

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x)


def test_experts_of_a_network_without_data_are_layers_too() -> None:
    model = Mixture()
    found = curvlab.analyze(model, analyses=("weights",))
    names = [layer.name for layer in found.layers]
    assert names == ["gate", *(f"experts.{k}.up_proj" for k in range(E)), "experts.scale"]
    for k in range(E):
        s = torch.linalg.svdvals(model.experts.up_proj[k].detach().double())
        assert found[f"experts.{k}.up_proj"].weights.condition_number == pytest.approx((s[0] / s[-1]).item(), rel=1e-5)
        assert found[f"experts.{k}.up_proj"].parameters == F * H + F
    assert found.coverage.parameters == sum(p.numel() for p in model.parameters())


def test_a_stack_is_read_once_for_all_its_experts() -> None:
    reads: list[str] = []

    class Reading(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            reads.append(name)
            return super().__getitem__(name)

    tensors = LastRead(Reading(a=torch.zeros(3, 2, 2), b=torch.zeros(3, 2, 2), c=torch.zeros(2)), {"a", "b"})
    reads.clear()  # the checker of types looks at the mapping when it is handed over
    for name in ("a", "a", "c", "a", "b", "b", "c", "a"):
        assert tensors[name] is not None
    assert reads == ["a", "c", "b", "c", "a"]
