"""What only the model's own code raised is told as the model's; a fault of curvlab's own is never explained away."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import curvlab
from curvlab.capture.recording import Recording
from curvlab.errors import CurvlabError, RecordingFault


class ScaledEmbedding(nn.Embedding):
    """An embedding with a forward of its own, which no adapter speaks for."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens) * math.sqrt(self.embedding_dim)


class TiedLanguageModel(nn.Module):
    """Tokens, a layer, and an output layer with the embedding's weights: as Gemma, BART and Cohere have it.

    The survey finds `lm_head` and refuses it, since its weight is also used in a way that nobody knows; what is
    recorded afterwards must not look for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = ScaledEmbedding(11, 6), nn.Linear(6, 6)
        self.lm_head = nn.Linear(6, 11, bias=False)
        self.lm_head.weight = self.embed.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.lm_head(torch.tanh(self.mix(self.embed(input_ids))))
        return logits


def data() -> dict[str, Tensor]:
    return {"input_ids": torch.randint(0, 11, (4, 5), generator=torch.Generator().manual_seed(0))}


def test_a_block_that_the_survey_refused_is_not_looked_for_afterwards() -> None:
    torch.manual_seed(0)
    found = curvlab.analyze(TiedLanguageModel(), data(), loss="cross-entropy")
    assert {block.name: block.status for block in found.coverage.blocks}["mix"] == "analyzed"
    head = next(block for block in found.coverage.blocks if block.name == "lm_head")
    assert head.reason is not None
    assert "shares parameters with" in head.reason


def test_what_the_model_raises_is_told_with_its_inputs() -> None:
    class Raising(TiedLanguageModel):
        def forward(self, input_ids: Tensor) -> Tensor:
            raise KeyError("lm_head")

    with pytest.raises(CurvlabError, match=r"the model cannot run on .*KeyError: 'lm_head'"):
        curvlab.analyze(Raising(), data(), loss="cross-entropy")


@pytest.mark.parametrize("place", ["_on_call", "_show_inputs"])
def test_what_curvlab_raises_while_it_records_is_no_word_about_the_model(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise KeyError("lm_head")

    monkeypatch.setattr(Recording, place, fails)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    with pytest.raises(RecordingFault, match=r"KeyError: 'lm_head', while recording '0'"):
        curvlab.analyze(model, torch.randn(8, 3), loss="mse")


def test_weights_used_by_hand_and_by_a_layer() -> None:
    """The same with a functional look-up: the two uses are one parameter, which is counted once."""

    class ByHand(TiedLanguageModel):
        def forward(self, input_ids: Tensor) -> Tensor:
            read = F.embedding(input_ids, self.embed.weight)
            logits: Tensor = self.lm_head(torch.tanh(self.mix(read)))
            return logits

    found = curvlab.analyze(ByHand(), data(), loss="cross-entropy")
    assert found.coverage.parameters == 11 * 6 + 6 * 6 + 6
    assert {block.name: block.status for block in found.coverage.blocks}["mix"] == "analyzed"
