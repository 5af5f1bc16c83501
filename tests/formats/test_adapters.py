"""Adapters of PEFT on their base: the same outputs as the base with W + c B A, merged or side by side."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import copies
import pytest
import torch
from adapters import adapter, low_rank
from sequence_models import TEXT, WORDS, folder, network, tokenizer
from torch import Tensor

import curvlab
from curvlab.errors import CurvlabError

IDS = torch.randint(0, WORDS, (3, 9), generator=torch.Generator().manual_seed(0))
PICTURES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def with_update(model: Any, layer: str, update: Tensor) -> None:
    weight = model.get_submodule(layer).weight
    with torch.no_grad():
        weight += update.reshape(weight.shape)


def outputs(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(x).logits
    return found


@pytest.mark.parametrize("merge", [False, True])
def test_linear_layers_with_scales_of_their_own(tmp_path: Path, merge: bool) -> None:
    q, down = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
    tensors = {**low_rank(q, 16, 16), **low_rank(down, 16, 24, rank=2, seed=1)}
    adapter(tmp_path / "adapter", tensors, alpha_pattern={"mlp.down_proj": 5}, rank_pattern={"mlp.down_proj": 2})
    base = network("Llama")
    found = curvlab.load(tmp_path / "adapter", base=folder(base, tmp_path / "base"), merge=merge)
    expected = copy.deepcopy(base)
    with_update(expected, q, 6 / 3 * tensors[f"{q}.lora_B.weight"] @ tensors[f"{q}.lora_A.weight"])
    with_update(expected, down, 5 / 2 * tensors[f"{down}.lora_B.weight"] @ tensors[f"{down}.lora_A.weight"])
    assert found.module is not None
    assert not torch.allclose(outputs(base, IDS), outputs(expected, IDS), atol=1e-4)
    torch.testing.assert_close(outputs(found.module, IDS), outputs(expected, IDS), rtol=1e-5, atol=1e-5)
    names = {name for name, _ in found.module.named_parameters()}
    assert (f"{q}.lora_A.weight" in names) == (not merge)
    assert (f"{q}.weight" in names) == merge


@pytest.mark.parametrize("merge", [False, True])
def test_a_transposed_layer_with_a_rank_stabilised_scale(tmp_path: Path, merge: bool) -> None:
    layer = "transformer.h.0.attn.c_attn"
    tensors = low_rank(layer, 48, 16)
    adapter(tmp_path / "adapter", tensors, use_rslora=True, fan_in_fan_out=True)
    base = network("GPT-2")
    found = curvlab.load(tmp_path / "adapter", base=folder(base, tmp_path / "base"), merge=merge)
    expected = copy.deepcopy(base)
    update = 6 / 3**0.5 * tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"]
    with_update(expected, layer, update.T.contiguous())
    torch.testing.assert_close(outputs(found.module, IDS), outputs(expected, IDS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("merge", [False, True])
def test_an_embedding(tmp_path: Path, merge: bool) -> None:
    layer = "model.embed_tokens"
    made = low_rank(layer, 16, WORDS)
    tensors = {name.replace("lora_", "lora_embedding_").removesuffix(".weight"): t for name, t in made.items()}
    base = network("Llama")
    found = curvlab.load(adapter(tmp_path / "adapter", tensors), base=folder(base, tmp_path / "base"), merge=merge)
    expected = copy.deepcopy(base)
    down, up = made.values()
    with_update(expected, layer, 2.0 * (up @ down).T.contiguous())
    torch.testing.assert_close(outputs(found.module, IDS), outputs(expected, IDS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("merge", [False, True])
def test_a_convolution_and_what_the_adapter_holds_whole(tmp_path: Path, merge: bool) -> None:
    layer = "vit.embeddings.patch_embeddings.projection"
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(3, 3, 4, 4, generator=generator) / 4, torch.randn(16, 3, 1, 1, generator=generator) / 4
    tensors = {
        f"{layer}.lora_A.weight": down,
        f"{layer}.lora_B.weight": up,
        f"{layer}.base_layer.bias": torch.randn(16, generator=generator),
        "classifier.modules_to_save.weight": torch.randn(5, 16, generator=generator),
    }
    base = network("ViT")
    found = curvlab.load(adapter(tmp_path / "adapter", tensors), base=folder(base, tmp_path / "base"), merge=merge)
    expected = copy.deepcopy(base)
    with_update(expected, layer, 2.0 * torch.einsum("or,rixy->oixy", up[:, :, 0, 0], down))
    with torch.no_grad():
        expected.get_submodule(layer).bias.copy_(tensors[f"{layer}.base_layer.bias"])
        expected.classifier.weight.copy_(tensors["classifier.modules_to_save.weight"])
    torch.testing.assert_close(outputs(found.module, PICTURES), outputs(expected, PICTURES), rtol=1e-5, atol=1e-5)
    assert any("weights that the adapter replaces: " in note for note in found.notes)


def test_the_factors_of_an_adapter_are_layers_of_their_own(tmp_path: Path) -> None:
    q = "model.layers.0.self_attn.q_proj"
    place = adapter(tmp_path / "adapter", low_rank(q, 16, 16))
    checkpoint = curvlab.load(place, base=folder(network("Llama"), tmp_path / "base"))
    found = curvlab.analyze(checkpoint, IDS, analyses=("kfac",), device="cpu")
    base, a, b = (found[f"{q}.{part}"].kfac for part in ("base_layer", "lora_A", "lora_B"))
    assert base is not None
    assert a is not None
    assert b is not None
    assert a.input_factor.trace == pytest.approx(base.input_factor.trace, rel=1e-6)
    # The gradient at B's output is the scale times that at the layer's.
    assert b.gradient_factor.trace == pytest.approx(4 * base.gradient_factor.trace, rel=1e-5)
    assert b.input_factor.size == 3


def test_one_command_with_the_base_s_tokenizer(tmp_path: Path) -> None:
    adapter(tmp_path / "adapter", low_rank("model.layers.0.self_attn.q_proj", 16, 16))
    tokenizer(folder(network("Llama"), tmp_path / "base"))
    (tmp_path / "corpus.txt").write_text(TEXT)
    command = ("analyze", "adapter", "--base", "base", "--data", "corpus.txt", "--layers", "*lora_*")
    done = copies.run("-m", "curvlab_cli", *command, "--json", "a.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.json").read_text())
    assert [layer["name"].rpartition(".")[2] for layer in found["layers"]] == ["lora_A", "lora_B"]
    assert "rank 3" in found["model"]["architecture"]


def test_a_base_in_the_adapter_s_own_folder_is_taken(tmp_path: Path) -> None:
    place = adapter(
        tmp_path / "adapter", low_rank("model.layers.0.self_attn.q_proj", 16, 16), base_model_name_or_path="base"
    )
    folder(network("Llama"), place / "base")
    assert curvlab.load(place).module is not None


@pytest.mark.parametrize(
    "name", ["someone/model", "../base", "https://somewhere.example/model", "/etc", "", "a\0b", "x" * 9000]
)
def test_a_base_elsewhere_is_not_followed(tmp_path: Path, name: str) -> None:
    folder(network("Llama"), tmp_path / "base")
    place = adapter(
        tmp_path / "adapter", low_rank("model.layers.0.self_attn.q_proj", 16, 16), base_model_name_or_path=name
    )
    found = curvlab.load(place)
    assert found.module is None
    (note,) = [note for note in found.notes if "--base DIR" in note]
    assert len(note) < 500


def test_a_link_to_a_base_elsewhere_is_not_followed(tmp_path: Path) -> None:
    folder(network("Llama"), tmp_path / "base")
    place = adapter(
        tmp_path / "adapter", low_rank("model.layers.0.self_attn.q_proj", 16, 16), base_model_name_or_path="link"
    )
    (place / "link").symlink_to(tmp_path / "base")
    assert curvlab.load(place).module is None


Q = "model.layers.0.self_attn.q_proj"
REFUSED: dict[str, tuple[dict[str, Tensor], dict[str, Any], str]] = {
    "another kind": (low_rank(Q, 16, 16), {"peft_type": "IA3"}, "an adapter of the kind 'IA3': curvlab knows LoRA"),
    "magnitudes": (low_rank(Q, 16, 16), {"use_dora": True}, "an adapter with 'use_dora'"),
    "no such layer": (low_rank("model.layers.7.self_attn.q_proj", 16, 16), {}, "has none of that name"),
    "other sizes": (low_rank(Q, 16, 17), {}, r"shape \(3, 17\) does not fit a weight of \(16, 16\)"),
    "a norm": (low_rank("model.norm", 16, 16), {}, "a layer of type LlamaRMSNorm has no low-rank update"),
    "nothing low-rank": ({"lm_head.weight": torch.zeros(WORDS, 16)}, {}, "holds no low-rank update"),
    "something else": ({**low_rank(Q, 16, 16), "extra": torch.zeros(3)}, {}, "it is no low-rank update"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_said(tmp_path: Path, name: str) -> None:
    tensors, settings, words = REFUSED[name]
    place = adapter(tmp_path / "adapter", tensors, **settings)
    with pytest.raises(CurvlabError, match=words):
        curvlab.load(place, base=folder(network("Llama"), tmp_path / "base"))


def test_a_base_is_of_an_adapter(tmp_path: Path) -> None:
    base = folder(network("Llama"), tmp_path / "base")
    with pytest.raises(CurvlabError, match=r"--base names the model that an adapter changes: .* a Hugging Face model"):
        curvlab.load(base, base=base)
    place = adapter(tmp_path / "adapter", low_rank(Q, 16, 16))
    with pytest.raises(CurvlabError, match="--merge is about an adapter: --base is missing"):
        curvlab.load(place, merge=True)
