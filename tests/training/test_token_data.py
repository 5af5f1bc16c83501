"""Training on tokens: keyword inputs, next tokens, padding that counts nowhere, saved networks to go on from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sequence_models import TEXT, folder, network, tokenizer
from torch import Tensor, nn
from training_runs import entries, trained

import curvlab
from curvlab.errors import CurvlabError
from curvlab.training.settings import TrainingSettings
from curvlab.training.task import task

N, T, WORDS = 20, 6, 11
READER = """
import torch
from torch import nn


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(11, 5), nn.Linear(5, 5), nn.Linear(5, 11)

    def forward(self, input_ids, attention_mask=None):
        x = self.embed(input_ids)
        seen = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype).tril()[None]
        if attention_mask is not None:
            seen = seen * attention_mask[:, None].to(x.dtype)
        return {"logits": self.head(torch.tanh(self.mix(seen @ x / seen.sum(-1, keepdim=True).clamp(min=1))))}


def build():
    return Reader()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network, tokens of several lengths, and a text."""
    (tmp_path / "tokennet.py").write_text(READER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, T + 1, N)
    mask = (np.arange(T) < lengths[:, None]).astype(np.int64)
    ids = generator.integers(1, WORDS, (N, T)) * mask
    labels = np.where(mask == 1, generator.integers(0, WORDS, (N, T)), -100)
    np.savez(tmp_path / "labelled.npz", input_ids=ids, attention_mask=mask, labels=labels)
    np.savez(tmp_path / "plain.npz", input_ids=ids, attention_mask=mask)
    (tmp_path / "corpus.txt").write_text(TEXT * 20)
    return tmp_path


def settings(data: str, **more: Any) -> dict[str, Any]:
    return {"architecture": "tokennet:build", "data": data, "optimizer": "sgd", **more}


def without_padding(model: nn.Module, inputs: dict[str, Tensor], y: Tensor) -> Tensor:
    """1/N Σ_n Σ over the labels that count, each example cut to its length: there is no padding to leave out."""
    total = torch.zeros(())
    for n, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
        logits = model(inputs["input_ids"][n : n + 1, :length])["logits"][0]
        counts = y[n, :length] != -100
        total = total + nn.functional.cross_entropy(logits[counts], y[n, :length][counts], reduction="sum")
    return total / len(y)


@pytest.mark.parametrize(("data", "loss"), [("labelled.npz", "auto"), ("plain.npz", "next-token")])
def test_a_step_is_torchs_on_examples_without_padding(place: Path, data: str, loss: str) -> None:
    given = settings(data, loss=loss, dtype="float64")
    chosen = task(TrainingSettings(**given))
    train = chosen.split.train.mapped(lambda t: t)
    assert len(train) == 16
    model = chosen.problem.build(0).double()
    wanted = torch.optim.SGD(model.parameters(), lr=0.1)
    without_padding(model, train.inputs(slice(None)), train.y).backward()  # type: ignore[arg-type]
    wanted.step()
    set_ = {"lr": 0.1, "momentum": 0.0}
    result = trained(place / "r", **given, steps=1, batch_size=16, settings=set_)
    assert result.steps == 1
    found = curvlab.load(place / "r" / "model.safetensors", architecture="tokennet:build")
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found.tensors[name].double(), parameter.detach(), rtol=1e-5, atol=1e-7)


def test_targets_of_plain_tokens_are_the_next_ones(place: Path) -> None:
    chosen = task(TrainingSettings(**settings("plain.npz", loss="next-token")))
    stored = np.load(place / "plain.npz")
    ids, mask = torch.from_numpy(stored["input_ids"]), torch.from_numpy(stored["attention_mask"])
    y = ids.roll(-1, 1)
    y[:, -1] = -100
    y[mask.roll(-1, 1) == 0] = -100
    for part, rows in ((chosen.split.train, slice(0, 16)), (chosen.split.test, slice(16, None))):
        assert torch.equal(part.y, y[rows])  # the end is held out, nothing is shuffled
        assert torch.equal(part.inputs(slice(None))["attention_mask"], mask[rows])
    assert set(chosen.problem.metrics) == {"accuracy", "perplexity"}
    with pytest.raises(CurvlabError, match="no targets"):
        task(TrainingSettings(**settings("plain.npz")))


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "kfac", "ekfac", "tnt", "lnb", "shampoo", "kbfgs", "fop"])
def test_every_kind_of_optimizer_trains_on_tokens(place: Path, optimizer: str) -> None:
    result = trained(place / "r", **{**settings("labelled.npz"), "optimizer": optimizer}, steps=3)
    assert result.steps == 3
    assert math.isfinite(result.train["loss"])


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "T5"])
def test_a_saved_language_model_is_trained_on_and_read_again(place: Path, name: str) -> None:
    """T5 has tokens, a mask and its decoder's tokens for inputs."""
    saved = tokenizer(folder(network(name), place / "model"))
    data, more = "corpus.txt", {}
    if name == "T5":
        generator = np.random.default_rng(0)
        data = "pairs.npz"
        np.savez(place / data, input_ids=generator.integers(4, 60, (12, 5)), labels=generator.integers(4, 60, (12, 7)))
    result = trained(place / "r", architecture=str(saved), data=data, optimizer="adamw", epochs=2, **more)
    first, last = entries(place / "r")[0], entries(place / "r")[-1]
    assert last["train"]["loss"] < first["train"]["loss"] or name == "T5"
    assert result.model["self_contained"]
    config = json.loads((place / "r" / "config.json").read_text())
    assert config["architectures"] == [type(network(name)).__name__]
    assert (place / "r" / "tokenizer.json").read_bytes() == (saved / "tokenizer.json").read_bytes()
    again = curvlab.analyze(place / "r", data=data, samples=2, analyses=("kfac",))
    assert again.coverage.analyzed / again.coverage.parameters > 0.95
    trained_further = trained(place / "r", resume=True, trust=True, epochs=3)
    assert trained_further.epochs == 3


def test_directions_and_a_race_begin_at_a_saved_language_model(place: Path) -> None:
    saved = tokenizer(folder(network("GPT-2"), place / "model"))
    found = curvlab.compare(str(saved), ["kfac", "adamw"], data="corpus.txt", mode="both", samples=8, epochs=1)
    assert 0 < found.optimizers["kfac"].mean <= 1
    assert found.training is not None
    (race,) = found.training.races
    for entrant in race.entrants.values():
        (run,) = entrant.runs
        assert run.failed is None
        assert run.loss[-1] < run.loss[0]


def test_what_is_no_network_to_train_is_one_sentence(place: Path) -> None:
    curvlab.save(place / "weights.safetensors", nn.Linear(2, 2), architecture="not.here:build")
    with pytest.raises(CurvlabError, match="has no network to train"):
        task(TrainingSettings(**{**settings("labelled.npz"), "architecture": "weights.safetensors"}))
    with pytest.raises(CurvlabError, match=r"neither package\.module:callable nor a saved network"):
        TrainingSettings(**{**settings("labelled.npz"), "architecture": "nothing"})


def test_a_tokenizer_that_leads_out_of_its_folder_is_not_copied(place: Path) -> None:
    saved = folder(network("GPT-2"), place / "model")
    (place / "secret").write_text("{}")
    (saved / "tokenizer.json").symlink_to(place / "secret")
    np.savez(place / "ids.npz", input_ids=np.random.default_rng(0).integers(4, 60, (12, 5)))
    trained(place / "r", architecture=str(saved), data="ids.npz", optimizer="sgd", steps=1)
    assert (place / "r" / "config.json").is_file()
    assert not (place / "r" / "tokenizer.json").exists()
