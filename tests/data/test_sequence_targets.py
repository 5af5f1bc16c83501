"""Networks over sequences: targets and decoder inputs as each family's own forward makes them of labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sequence_models import WORDS, folder, network
from torch import Tensor, nn

import curvlab
from curvlab.analyses.source import open_source
from curvlab.capture.output import output_tensor
from curvlab.errors import CurvlabError
from curvlab.likelihoods import Categorical
from curvlab.likelihoods.of_batch import of_batch

CAUSAL = ("GPT-2", "Llama", "Mixtral", "Mamba")
DECODERS = ("T5", "BART", "mBART")


def text() -> dict[str, Tensor]:
    """Six examples of nine positions, with padding behind two of them."""
    ids = torch.randint(4, WORDS, (6, 9), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(9) < torch.tensor([9, 5, 7, 9, 9, 9])[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def speech() -> dict[str, Tensor]:
    return {"input_features": torch.randn(6, 8, 20, generator=torch.Generator().manual_seed(0))}


def labels(positions: int) -> Tensor:
    """Word numbers, −100 behind the first three of the last example."""
    found = torch.randint(4, WORDS, (6, positions), generator=torch.Generator().manual_seed(1))
    found[-1, 3:] = -100
    return found


def mean_loss(model: nn.Module, inputs: Mapping[str, Any], y: Tensor | None) -> tuple[float, int]:
    """The mean over the labels that count, of what `open_source` makes; and how many count."""
    source = open_source((inputs, y), model, samples=None, seed=0)
    ((x, targets),) = source.batches(6)
    assert targets is not None
    assert isinstance(x, Mapping)
    z = output_tensor(model(**x)).detach()
    count = int((targets != -100).sum())
    return float(of_batch(Categorical(-1), z, targets, x).loss(z, targets)) * 6 / count, count


def own_loss(model: nn.Module, inputs: Mapping[str, Tensor], y: Tensor) -> float:
    with torch.no_grad():
        return float(model(**inputs, labels=y).loss)


@pytest.mark.parametrize("name", CAUSAL)
def test_without_labels_a_causal_model_has_the_next_tokens_that_are_no_padding(name: str) -> None:
    model, inputs = network(name), text()
    own = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    ours, count = mean_loss(model, inputs, None)
    assert ours == pytest.approx(own_loss(model, inputs, own), rel=1e-5)
    assert count == int(inputs["attention_mask"].sum()) - 6


def test_the_family_s_own_loss_says_whether_labels_are_moved() -> None:
    model, inputs, y = network("XLNet"), text(), labels(9)
    y[inputs["attention_mask"] == 0] = -100
    ours, _ = mean_loss(model, inputs, y)
    assert ours == pytest.approx(own_loss(model, inputs, y), rel=1e-5)
    assert open_source(inputs, model, samples=None, seed=0).targets is None


def test_a_causal_model_whose_loss_moves_no_labels_has_the_next_tokens_without_any() -> None:
    model, ids = network("BART's decoder"), text()["input_ids"].clamp(min=4)
    ours, count = mean_loss(model, {"input_ids": ids}, None)
    moved = torch.cat([ids[:, 1:], torch.full((6, 1), -100)], 1)
    assert ours == pytest.approx(own_loss(model, {"input_ids": ids}, moved), rel=1e-5)
    assert count == 6 * 8
    assert mean_loss(model, {"input_ids": ids}, ids)[0] == pytest.approx(
        own_loss(model, {"input_ids": ids}, ids), rel=1e-5
    )


def test_a_masked_model_has_the_labels_that_are_given_and_else_none() -> None:
    model, inputs, y = network("BERT"), text(), labels(9)
    y[inputs["attention_mask"] == 0] = -100
    assert mean_loss(model, inputs, y)[0] == pytest.approx(own_loss(model, inputs, y), rel=1e-5)
    found = curvlab.analyze(model, inputs, analyses=("moments",), device="cpu")
    assert "targets: drawn at each position, as there are no labels for BertForMaskedLM" in found.notes
    assert found.settings["likelihood"] == "categorical"


@pytest.mark.parametrize("positions", [5, 9])
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_gets_its_inputs_from_the_labels(name: str, positions: int) -> None:
    """With as many labels as inputs too, where the encoder's mask must not be taken for the decoder's."""
    model, inputs, y = network(name), text(), labels(positions)
    assert mean_loss(model, inputs, y)[0] == pytest.approx(own_loss(model, inputs, y), rel=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_without_labels_a_decoder_repeats_the_inputs(name: str) -> None:
    model, inputs = network(name), text()
    own = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    assert mean_loss(model, inputs, None)[0] == pytest.approx(own_loss(model, inputs, own), rel=1e-5)


def test_decoder_inputs_that_are_given_stay() -> None:
    model, inputs = network("T5"), text()
    given = labels(6).clamp(min=0)
    source = open_source({**inputs, "decoder_input_ids": given}, model, samples=None, seed=0)
    ((x, y),) = source.batches(6)
    assert isinstance(x, Mapping)
    assert y is not None
    assert torch.equal(x["decoder_input_ids"], given)
    assert torch.equal(y[:, :-1], given[:, 1:])
    assert bool((y[:, -1] == -100).all())


def test_speech_with_and_without_labels() -> None:
    model, y = network("Whisper"), labels(5)
    assert mean_loss(model, speech(), y)[0] == pytest.approx(own_loss(model, speech(), y), rel=1e-5)
    ((x, none),) = open_source(speech(), model, samples=None, seed=0).batches(6)
    assert isinstance(x, Mapping)
    assert none is None
    assert x["decoder_input_ids"].tolist() == [[3]] * 6


@pytest.mark.parametrize("name", [*CAUSAL, *DECODERS, "Whisper", "ViT"])
def test_a_folder_and_arrays_in_a_file_give_curvature_without_an_option(name: str, tmp_path: Path) -> None:
    place = folder(network(name), tmp_path / "model")
    pictures = {"pixel_values": torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))}
    arrays = {"Whisper": {**speech(), "labels": labels(5)}, "ViT": pictures}.get(name, text())
    np.savez(tmp_path / "data.npz", **{key: values.numpy() for key, values in arrays.items()})
    found = curvlab.analyze(str(place), str(tmp_path / "data.npz"), device="cpu")
    assert found.settings["likelihood"] == "categorical"
    assert any(layer.kfac is not None for layer in found.layers)


@pytest.mark.parametrize("name", ["BERT", "T5", "ViT"])
def test_a_network_without_a_head_has_the_curvature_of_its_features(name: str, tmp_path: Path) -> None:
    place = folder(network(f"{name} without a head"), tmp_path / "model")
    pictures = {"pixel_values": torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))}
    np.savez(tmp_path / "d.npz", **{k: v.numpy() for k, v in (pictures if name == "ViT" else text()).items()})
    found = curvlab.analyze(str(place), str(tmp_path / "d.npz"), analyses=("kfac",), device="cpu")
    assert found.settings["likelihood"] == "gaussian"
    assert any(f"since {name if name != 'BERT' else 'Bert'}Model answers with features" in note for note in found.notes)
    assert any(layer.kfac is not None for layer in found.layers)


def test_batches_of_a_loader_become_what_arrays_become() -> None:
    model, inputs = network("GPT-2"), text()
    loader = [{key: values[i : i + 3] for key, values in inputs.items()} for i in (0, 3)]
    whole = curvlab.analyze(model, inputs, analyses=("kfac",), device="cpu", fisher_type="empirical")
    parts = curvlab.analyze(model, loader, analyses=("kfac",), device="cpu", fisher_type="empirical")
    with_labels = [
        {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)} for batch in loader
    ]
    given = curvlab.analyze(model, with_labels, analyses=("kfac",), device="cpu", fisher_type="empirical")
    for layer in whole.layers:
        if layer.kfac is not None:
            expected = layer.kfac.gradient_factor.trace
            for other in (parts[layer.name].kfac, given[layer.name].kfac):
                assert other is not None
                assert other.gradient_factor.trace == pytest.approx(expected, rel=1e-6)


class OwnNetwork(nn.Module):
    """As nanoGPT has it: tokens in, scores of the next one at each position out."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(WORDS, 8), nn.Linear(8, WORDS)

    def forward(self, idx: Tensor) -> Tensor:
        out: Tensor = self.head(self.table(idx))
        return out


def test_next_token_is_a_loss_for_a_network_of_one_s_own() -> None:
    torch.manual_seed(0)
    model, ids = OwnNetwork(), text()["input_ids"]
    found = curvlab.analyze(model, ids, loss="next-token", fisher_type="empirical", analyses=("kfac",), device="cpu")
    y = torch.cat([ids[:, 1:], torch.full((6, 1), -100)], 1)
    told = curvlab.analyze(
        model, (ids, y), loss="cross-entropy", fisher_type="empirical", analyses=("kfac",), device="cpu"
    )
    ours, theirs = found["head"].kfac, told["head"].kfac
    assert ours is not None
    assert theirs is not None
    assert ours.gradient_factor.trace == theirs.gradient_factor.trace


def test_alignments_need_a_loss() -> None:
    model = network("wav2vec")
    sound = {"input_values": torch.randn(4, 400, generator=torch.Generator().manual_seed(0))}
    with pytest.raises(CurvlabError, match=r"Wav2Vec2ForCTC is trained with a CTC loss.* give --loss cross-entropy"):
        curvlab.analyze(model, sound, device="cpu")
    found = curvlab.analyze(model, sound, loss="cross-entropy", analyses=("kfac",), device="cpu")
    assert found["lm_head"].kfac is not None


def test_one_token_has_no_next_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", input_ids=np.full((4, 1), 5))
    with pytest.raises(CurvlabError, match="a single token has no next one"):
        curvlab.analyze(network("GPT-2"), str(tmp_path / "t.npz"), device="cpu")
