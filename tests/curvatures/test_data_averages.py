"""Averages over data that comes in pieces: kept rows, padding, two analyses of one recipe, blocks that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import curvlab
from curvlab.analyses.needs import Needs
from curvlab.curvatures.input_moments import InputMoments
from curvlab.curvatures.tensor_normal import TensorNormalCurvature
from curvlab.errors import CurvlabError
from curvlab.optim import KFAC

pytestmark = pytest.mark.usefixtures("float64")
OPTIONS = {"loss": "cross-entropy", "dtype": "float64"}


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 3))


@pytest.mark.parametrize("statistic", ["batch", "per-example"])
@pytest.mark.parametrize("examples", [14, 17], ids=["equal batches", "a last one of fewer"])
def test_tensor_normal_factors_of_few_rows_are_those_that_are_summed(statistic: str, examples: int) -> None:
    """Batches of 7: fewer than the widths, so that rows could be kept, and are of single examples only."""
    model, x, y = network(), torch.randn(examples, 30), torch.randint(0, 3, (examples,))
    options = {"fisher_type": "type-2", "statistic": statistic}
    found = curvlab.analyze(model, data=(x, y), analyses=("tnt",), batch_size=7, **options, **OPTIONS)
    loader = [(x[i : i + 7], y[i : i + 7]) for i in range(0, examples, 7)]
    wanted = curvlab.curvature.tensor_normal_factors(model, loader, likelihood="categorical", **options)
    for name in ("0", "2"):
        for mode, factor in zip(found[name].tnt.modes, wanted[f"{name}.weight"].factors, strict=True):
            assert mode.trace == pytest.approx(factor.trace().item(), rel=1e-10)
            assert mode.max == pytest.approx(torch.linalg.eigvalsh(factor).max().item(), rel=1e-10)


class Tagger(nn.Module):
    """A word's class from its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.table(input_ids))


@pytest.mark.parametrize("kfac_approx", ["expand", "reduce"])
def test_an_example_that_is_all_padding_leaves_its_half_without_rows(kfac_approx: str) -> None:
    words, mask = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[1, 1, 0], [0, 0, 0]])
    labels = torch.tensor([[0, 1, -100], [-100, -100, -100]])
    data = [({"input_ids": words, "attention_mask": mask}, labels)]
    found = curvlab.analyze(Tagger(), data=data, kfac_approx=kfac_approx, **OPTIONS)
    assert found["head"].moments.count == 2
    assert found["head"].moments.stderr == {}


def test_two_analyses_share_a_recipe_and_refuse_two_settings_of_one() -> None:
    kept = InputMoments(keep_rows=True)
    assert (Needs((kept,)) | Needs((InputMoments(),))).curvatures == (kept,)
    with pytest.raises(CurvlabError, match="two analyses need the averages of tensor-normal with other settings"):
        Needs((TensorNormalCurvature("batch"),)) | Needs((TensorNormalCurvature("per-example"),))


def test_every_layer_that_uses_a_block_is_told_that_it_does_not_fit(empty_process: None) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    x, y = torch.randn(20, 6), torch.randint(0, 6, (20,))
    found = curvlab.analyze(model, data=(x, y), analyses=("tnt",), max_memory=1, **OPTIONS)
    assert all("tensor-normal factors would take 1.12 KiB" in (block.reason or "") for block in found.coverage.blocks)


def test_a_layer_frozen_between_two_batches_of_a_step_is_an_error() -> None:
    model, x, y = network(), torch.randn(8, 30), torch.randint(0, 3, (8,))
    optimizer = KFAC(model, "categorical")
    optimizer.accumulate(lambda: nn.functional.cross_entropy(model(x), y))
    model[0].requires_grad_(False)
    with pytest.raises(CurvlabError, match="a parameter was frozen or freed between two batches of one step"):
        optimizer.accumulate(lambda: nn.functional.cross_entropy(model(x), y))
