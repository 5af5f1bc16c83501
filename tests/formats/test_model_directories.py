"""Hugging Face and timm directories: the network where it can be made, the weights and the reason where not."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from real_models import real_folder
from safetensors.torch import load_file, save_file
from torch import nn

import curvlab
from curvlab.errors import CheckpointError
from curvlab.formats.huggingface.network import stored_names
from curvlab.formats.load import load

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}


@pytest.fixture(scope="module")
def transformers() -> Any:
    import transformers

    return transformers


@pytest.fixture(scope="module")
def classifier(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    write(transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES, num_labels=3)), folder)
    return folder


def write(model: Any, folder: Path) -> None:
    """The two files that matter, without the progress bars of `save_pretrained`."""
    config = model.config.to_dict() | {"architectures": [type(model).__name__]}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, default=str))
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    save_file({k: v.contiguous() for k, v in model.state_dict().items() if k not in tied}, folder / "model.safetensors")


@pytest.fixture
def copy(classifier: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in classifier.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def change(folder: Path, **settings: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))
    return folder


def text(path: Path, labels: bool = True) -> Path:
    generator = np.random.default_rng(0)
    mask = (np.arange(7) < generator.integers(2, 8, (24, 1))).astype(np.int64)
    arrays = {"input_ids": generator.integers(1, 40, (24, 7)) * mask, "attention_mask": mask}
    np.savez(path, **arrays, **({"labels": generator.integers(0, 3, 24)} if labels else {}))
    return path


def test_a_classifier_is_profiled_on_tokenised_text(transformers: Any, classifier: Path, tmp_path: Path) -> None:
    checkpoint = load(classifier)
    assert checkpoint.format == "huggingface"
    assert checkpoint.architecture == "config.json (BertForSequenceClassification of transformers)"
    stored = load_file(classifier / "model.safetensors")
    assert checkpoint.module is not None
    parameters = dict(checkpoint.module.named_parameters())
    assert all(torch.equal(parameters[name], stored[name]) for name in parameters)
    analysis = curvlab.analyze(checkpoint, str(text(tmp_path / "t.npz")))
    assert analysis.coverage.analyzed == analysis.coverage.parameters
    assert analysis.settings["likelihood"] == "categorical"
    for layer in analysis.layers:
        assert layer.moments is not None
        assert layer.kfac is not None
        assert layer.tnt is not None
    query = analysis["bert.encoder.layer.0.attention.self.query"].moments
    assert query is not None
    assert query.count == int(np.load(tmp_path / "t.npz")["attention_mask"].sum())


def test_a_bare_weights_file_with_hf_and_its_config(classifier: Path) -> None:
    assert load(classifier / "model.safetensors").module is None
    assert load(classifier / "model.safetensors", architecture="hf").module is not None


def test_a_causal_model_s_labels_are_moved(transformers: Any, tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=30, n_positions=12, n_embd=8, n_layer=1, n_head=2)
    torch.manual_seed(0)
    write(transformers.GPT2LMHeadModel(config), tmp_path / "gpt2")
    checkpoint = load(tmp_path / "gpt2")
    assert checkpoint.module is not None, checkpoint.notes
    ids = np.random.default_rng(0).integers(0, 30, (6, 9))
    np.savez(tmp_path / "t.npz", input_ids=ids, labels=ids)
    analysis = curvlab.analyze(checkpoint, str(tmp_path / "t.npz"), analyses=("moments",))
    assert any("moved by one position" in note for note in analysis.notes)
    assert any("48 of 54 labels count" in note for note in analysis.notes)
    mine = checkpoint.module(input_ids=torch.from_numpy(ids), labels=torch.from_numpy(ids)).loss.detach()
    from curvlab.data.load import load as load_data
    from curvlab.data.tokens import Tokens, keyword_inputs
    from curvlab.likelihoods import Categorical
    from curvlab.likelihoods.masked import with_mask

    data = load_data(str(tmp_path / "t.npz"))
    assert isinstance(data, Tokens)
    inputs, labels, _ = keyword_inputs(data, checkpoint.module)
    assert labels is not None
    z = checkpoint.module(**inputs).logits.detach()
    loss = with_mask(Categorical(-1), z, labels, inputs).loss(z, labels)
    assert float(loss) == pytest.approx(float(mine) * 48 / 6, rel=1e-5)  # transformers takes the mean over tokens


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "code beside it": ({"auto_map": {"AutoModel": "evil.Model"}}, "'auto_map'"),
    "kernels from the net": ({"_attn_implementation": "someone/kernel"}, "'_attn_implementation'"),
    "the same without a stroke": ({"attn_implementation": "someone/kernel"}, "'attn_implementation'"),
    "the same one level down": ({"text_config": {"_attn_implementation_internal": "x"}}, "'text_config._attn"),
    "another library's numbers": ({"quantization_config": {"quant_method": "bitsandbytes"}}, "'quantization_config'"),
    "a backbone from the net": ({"use_pretrained_backbone": True}, "'use_pretrained_backbone'"),
    "a billion layers": ({"num_hidden_layers": 10**9}, "beyond what a network can have"),
    "a petabyte": ({"hidden_size": 2**25, "num_attention_heads": 1}, "more weights than the file can fill"),
    "a billion labels": ({"num_labels": 10**9}, "beyond what a network can have"),
    "an unknown type": ({"model_type": "nonesuch"}, "knows no model of type 'nonesuch'"),
    "a class of another type": (
        {"architectures": ["GPT2LMHeadModel"]},
        "no model 'GPT2LMHeadModel' for the type 'bert'",
    ),
    "a class that is none": ({"architectures": ["pipeline"]}, "no model 'pipeline'"),
    "an attribute of a module": ({"architectures": ["os.system"]}, "no model 'os.system'"),
    "no class": ({"architectures": []}, "no model_type and architectures"),
    "sizes that do not fit": ({"hidden_size": 15}, "transformers cannot make the network"),
    "sizes of another network": ({"intermediate_size": 25}, ""),
    "a head of another size": ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}, ""),
    "a head that the file has not": (
        {"architectures": ["BertForMaskedLM"]},
        "would start these weights anew, at random",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_leaves_weights_only(name: str, transformers: Any, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, words = REFUSED[name]
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the net"))
    checkpoint = load(change(copy, **settings))
    assert checkpoint.module is None
    assert len(checkpoint.tensors) == 41
    note = checkpoint.notes[-1]
    assert note.startswith("weights only: ")
    assert words in note
    with pytest.raises(CheckpointError):
        load(copy, architecture="hf")


def test_an_adapter_is_not_followed_to_its_base_model(transformers: Any, copy: Path) -> None:
    (copy / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc"}')
    assert "adapter_config.json" in load(copy).notes[-1]


def test_the_file_s_names_are_shown_where_transformers_renames(transformers: Any, copy: Path) -> None:
    stored = load_file(copy / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in stored.items()
    }
    save_file(old, copy / "model.safetensors")
    checkpoint = load(copy)
    if checkpoint.module is None:  # a version that reads old names no longer
        assert "would start these weights anew" in checkpoint.notes[-1]
    else:
        assert any("renamed" in note and "gamma" in note for note in checkpoint.notes)
    found = stored_names(nn.Linear(2, 2), {})
    assert found == {}


def test_sharded_directories_and_pickled_weights(transformers: Any, copy: Path) -> None:
    stored = load_file(copy / "model.safetensors")
    names = list(stored)
    (copy / "model.safetensors").unlink()
    places = {name: f"model-{place}.safetensors" for place in (0, 1) for name in names[place::2]}
    for shard in set(places.values()):
        save_file({name: stored[name] for name in names if places[name] == shard}, copy / shard)
    total = sum(t.nbytes for t in stored.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load(copy).module is not None
    for file in copy.glob("model*"):
        file.unlink()
    torch.save(stored, copy / "pytorch_model.bin")
    checkpoint = load(copy)  # read without opening the pickle; transformers is handed tensors
    assert checkpoint.module is not None
    for name, value in checkpoint.module.state_dict().items():
        torch.testing.assert_close(value, stored[name].float(), rtol=0, atol=0)
    assert set(checkpoint.tensors) == set(stored)


def test_without_transformers_there_are_weights_and_what_to_install(
    classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "transformers" else before(name, *rest)
    )
    checkpoint = load(classifier)
    assert checkpoint.module is None
    assert "pip install 'curvlab[hf]'" in checkpoint.notes[-1]


def test_a_torchvision_of_another_torch_is_as_if_it_were_not_there(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "torchvision" / "__init__.py").write_text(broken)
    code = (
        "import sys\nsys.modules.pop('torchvision', None)\nsys.path.insert(0, sys.argv[1])\n"
        "import curvlab\nprint(type(curvlab.load(sys.argv[2]).module).__name__)"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(classifier)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["BertForSequenceClassification"], done.stderr


def test_minilm_is_profiled_with_data_end_to_end(transformers: Any, tmp_path: Path) -> None:
    """A sentence encoder without a head: its outputs are vectors at every token, so the likelihood is gaussian."""
    checkpoint = load(real_folder("minilm"))
    assert checkpoint.architecture == "config.json (BertModel of transformers)"
    generator = np.random.default_rng(0)
    mask = (np.arange(8) < generator.integers(3, 9, (6, 1))).astype(np.int64)
    np.savez(tmp_path / "t.npz", input_ids=generator.integers(1000, 20_000, (6, 8)) * mask, attention_mask=mask)
    layers = ("*word_embeddings", "encoder.layer.5.*", "pooler.dense")
    analysis = curvlab.analyze(checkpoint, str(tmp_path / "t.npz"), loss="mse", layers=layers)
    assert len(analysis.layers) == 10
    for layer in analysis.layers:
        assert layer.moments is not None
        if layer.name != "pooler.dense":  # no output depends on it
            assert layer.kfac is not None
        if layer.name.startswith("encoder"):
            assert layer.tnt is not None
            assert layer.moments.count == int(mask.sum())


# timm itself needs an environment of its own (`make test-timm`); here is what stands around it.


def test_a_folder_with_one_model_file_is_that_file(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.ones(3, 4), "fc.bias": torch.zeros(3)}, tmp_path / "best.pth")
    (tmp_path / "notes.txt").write_text("hello")
    found = curvlab.load(tmp_path)
    assert [layer.kind for layer in found.layers] == ["Linear"]
    assert any("opened 'best.pth', the only model file of the folder" in note for note in found.notes)


def test_a_large_network_is_made_only_where_something_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transformers: Any
) -> None:
    """Its weights in float32 would stand beside those of the file."""
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=11, n_positions=6)
    write(transformers.GPT2LMHeadModel(config), tmp_path / "gpt2")
    assert load(tmp_path / "gpt2", idle=True).module is not None
    monkeypatch.setattr("curvlab.formats.load.LARGE_IDLE", 100)
    assert load(tmp_path / "gpt2").module is not None
    found = load(tmp_path / "gpt2", idle=True)
    assert found.module is None
    assert any("is not made where no --data runs it" in note for note in found.notes)
    analysis = curvlab.analyze(tmp_path / "gpt2")
    assert all(layer.weights is not None for layer in analysis.layers)
    assert not any("has no graph" in note for note in analysis.notes)
    data = torch.randint(0, 11, (4, 5))
    assert curvlab.analyze(tmp_path / "gpt2", {"input_ids": data}, loss="next-token").coverage.analyzed > 0
