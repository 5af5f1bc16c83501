"""What torch says in riddles is a sentence: weights without numbers or another type, sparse gradients, checkpoints."""

from __future__ import annotations

import pytest
import torch
from optim_rows import ROWS, Row
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from curvlab.errors import CurvlabError
from curvlab.optim import LNB

pytestmark = pytest.mark.usefixtures("float64")
each = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


@each
def test_a_model_without_numbers(row: Row) -> None:
    model = network().to("meta")
    optimizer = row.make(model)
    x, y = torch.ones(5, 4, device="meta"), torch.ones(5, dtype=torch.long, device="meta")
    with pytest.raises(CurvlabError, match="on the meta device"):
        optimizer.step(lambda: F.cross_entropy(model(x), y))


@each
def test_a_model_that_has_become_another_type(row: Row) -> None:
    model = network()
    optimizer = row.make(model)
    y = torch.arange(30) % 3
    optimizer.step(lambda: F.cross_entropy(model(torch.ones(30, 4)), y))
    state = optimizer.state_dict()
    model.float()
    with pytest.raises(CurvlabError, match=r"float32 now, and were torch\.float64"):
        optimizer.step(lambda: F.cross_entropy(model(torch.ones(30, 4).float()), y))
    again = row.make(model)
    again.load_state_dict(state)  # which takes the type of the model
    again.step(lambda: F.cross_entropy(model(torch.ones(30, 4).float()), y))


@each
def test_sparse_gradients(row: Row) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4, sparse=True), nn.Linear(4, 3))
    words, y = torch.arange(7), torch.arange(7) % 3
    optimizer = row.make(model)
    with pytest.raises(CurvlabError, match=r"gradient of '0\.weight' is sparse.*sparse=False"):
        optimizer.step(lambda: F.cross_entropy(model(words), y))
    if not row.watches:
        F.cross_entropy(model(words), y).backward()
        with pytest.raises(CurvlabError, match=r"gradient of '0\.weight' is sparse"):
            optimizer.step()


@each
def test_reentrant_checkpoints(row: Row) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = network(), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.head(checkpoint(self.inner, x, use_reentrant=True))
            return found

    model, x, y = Checkpointed(), torch.randn(12, 4, requires_grad=True), torch.arange(12) % 3
    with pytest.raises(CurvlabError, match="use_reentrant=False"):
        row.make(model).step(lambda: F.cross_entropy(model(x), y))


def test_a_rate_of_lnb_that_became_negative() -> None:
    model = network()
    optimizer = LNB(model)
    optimizer.param_groups[0]["lr"] = -0.1
    with pytest.raises(CurvlabError, match=r"lr is -0\.1.*√lr"):
        optimizer.step(lambda: F.cross_entropy(model(torch.ones(30, 4)), torch.arange(30) % 3))
