"""Data made what a model takes: the model itself is the judge, by running on the result."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from curvlab.data import Dataset, fit, input_shape
from curvlab.errors import DataError


def made(x):
    return Dataset("made", x, None, "a test")


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (nn.Sequential(nn.Linear(64, 3)), torch.rand(5, 1, 8, 8)),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), torch.rand(5, 8, 8)),
        (nn.Sequential(nn.Conv2d(1, 2, 3)), torch.rand(5, 8, 8)),
        (nn.Sequential(nn.Conv2d(3, 2, 3)), torch.rand(5, 8, 9, 3)),
        (nn.Sequential(nn.Conv1d(1, 2, 3)), torch.rand(5, 20)),
        (nn.Sequential(nn.Linear(64, 3)), torch.randint(256, (5, 8, 8), dtype=torch.uint8)),
        (nn.Sequential(nn.Linear(2, 3)), torch.randint(9, (5, 2))),
        (nn.Sequential(nn.Embedding(10, 4)), torch.randint(10, (5, 7), dtype=torch.int32)),
        (nn.Sequential(nn.Embedding(10, 4)), torch.tensor([[1.0, 9.0]])),
    ],
    ids=["flatten", "flatten twice", "channel", "channels last", "signal", "bytes", "counts", "tokens", "float tokens"],
)
def test_the_model_runs_on_what_fit_gives_and_says_what_was_done(model, x):
    fitted = fit(made(x), model)
    assert len(model(fitted.x)) == len(x)
    if fitted.x.shape != x.shape:
        assert str(x.shape[1]) in fitted.notes[-1]
    assert fit(fitted, model).notes == fitted.notes  # nothing is left to do the second time


def test_bytes_are_scaled_to_one():
    x = torch.tensor([[0, 51], [102, 255]], dtype=torch.uint8)
    fitted = fit(made(x), nn.Linear(2, 1))
    assert torch.equal(fitted.x, torch.tensor([[0.0, 0.2], [0.4, 1.0]]))
    assert "scaled" in fitted.notes[0]


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (nn.Linear(8, 3), torch.rand(5, 4, 8)),
        (nn.Conv2d(3, 2, 3), torch.rand(5, 3, 8, 3)),
        (nn.ReLU(), torch.rand(5, 4)),
        (nn.Linear(7, 3), torch.rand(5, 8)),
    ],
    ids=["positions", "both axes are channels", "no parameters", "does not fit"],
)
def test_what_fits_or_cannot_fit_is_left_alone(model, x):
    fitted = fit(made(x), model)
    assert fitted.x is x
    assert fitted.notes == ()


@pytest.mark.parametrize("token", [10, -1])
def test_tokens_that_an_embedding_does_not_have(token):
    with pytest.raises(DataError, match="rows 0 to 9"):
        fit(made(torch.tensor([[token]])), nn.Embedding(10, 4))


class Patches(nn.Module):
    """A parameter of its own and an embedding of positions stand before the layer that sees the data."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.norm = nn.LayerNorm(4)
        self.patches = nn.Conv2d(1, 4, 2, 2)

    def forward(self, x):
        return self.norm(self.patches(x).flatten(2).mT + self.token)


def test_parameters_before_the_first_layer_do_not_hide_it():
    x = torch.randint(256, (5, 8, 8), dtype=torch.uint8)
    assert Patches()(fit(made(x), Patches()).x).shape == (5, 16, 4)


def test_images_are_no_tokens_whatever_stands_first():
    model = nn.ModuleList([nn.Embedding(16, 4), nn.Conv2d(1, 4, 2)])
    x = torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8)
    assert model[1](fit(made(x), model).x).shape == (5, 4, 7, 7)
    real = torch.rand(5, 7)
    assert fit(made(real), model).x is real


def test_only_a_linear_first_layer_tells_the_shape():
    assert input_shape(nn.Sequential(nn.Flatten(), nn.Linear(12, 3))) == (12,)
    assert input_shape(nn.Sequential(nn.Conv2d(3, 2, 3))) is None
