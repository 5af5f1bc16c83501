"""The decoder of text: what it may see, how its loss and metrics count, that it learns, and that it is profiled."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn

import curvlab
from curvlab.data.coriolanus import characters, read_coriolanus, text
from curvlab.problems.batches import batches
from curvlab.problems.metrics import accuracy, perplexity
from curvlab.problems.registry import problem
from curvlab.training.evaluation import evaluate

PROBLEM = problem("text-transformer")


def test_targets_are_the_next_characters_and_nothing_is_lost_between_examples():
    data = read_coriolanus()
    known = characters()
    words = "".join(known[place] for place in data.x.flatten().tolist())
    assert words == text()[: len(words)]
    assert len(text()) - len(words) <= 64
    assert torch.equal(data.y.flatten()[:-1], data.x.flatten()[1:])
    assert int(data.y.max()) < 61 == len(characters())


def test_the_end_of_the_text_is_held_out_in_its_order():
    data, split = read_coriolanus(), PROBLEM.load(3)
    assert torch.equal(torch.cat([split.train.x, split.test.x]), data.x)
    assert 0.09 < len(split.test) / len(data) < 0.11


def test_no_output_sees_a_later_character():
    module, x = PROBLEM.build(0).double(), read_coriolanus().x[:2]
    changed = x.clone()
    changed[:, 40:] = 60 - changed[:, 40:]
    before, after = module(x), module(changed)
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.equal(before[:, 40], after[:, 40])
    assert sum(p.numel() for p in module.parameters()) == 463_872


def test_shorter_sequences_are_taken():
    module, x = PROBLEM.build(0).double(), read_coriolanus().x[:2]
    torch.testing.assert_close(module(x[:, :9]), module(x)[:, :9])


def test_loss_and_metrics_are_those_of_torch_without_padding():
    z, y = torch.randn(5, 7, 61, dtype=torch.float64), torch.randint(0, 61, (5, 7))
    y[1, 4:], y[3, 1:] = -100, -100
    kept = y != -100
    mean = nn.functional.cross_entropy(z[kept], y[kept])
    assert PROBLEM.loss(z, y).item() == pytest.approx(mean.item() * int(kept.sum()) / 5)
    assert perplexity(z, y).item() == pytest.approx(mean.exp().item())
    assert accuracy(z, y).item() == pytest.approx((z.argmax(-1) == y)[kept].double().mean().item())


@pytest.mark.parametrize("size", [1, 3, 8])
def test_an_evaluation_in_batches_counts_every_position_once(size):
    """Means over batches, weighted by examples, would count the positions of a padded example more often."""
    module, part = PROBLEM.build(0), replace(read_coriolanus(), name="few")
    part = replace(part, x=part.x[:8], y=part.y[:8].clone())
    part.y[2, 3:] = -100
    part.y[5:7, 50:] = -100
    found = evaluate(module, PROBLEM, part, size)
    with torch.no_grad():
        z = module(part.x).double()
    for name, metric in PROBLEM.metrics.items():
        assert found[name] == pytest.approx(metric(z, part.y).item(), rel=1e-5)
    assert found["loss"] == pytest.approx(PROBLEM.loss(z, part.y).item(), rel=1e-5)


def test_it_begins_at_chance_and_learns():
    module, split = PROBLEM.build(0), PROBLEM.load(0)
    held_out = replace(split.test, x=split.test.x[:32], y=split.test.y[:32])
    assert evaluate(module, PROBLEM, held_out, 32)["perplexity"] == pytest.approx(61, rel=0.05)
    optimizer = curvlab.optim.AdamW(module, **PROBLEM.settings["adamw"])
    for x, y in islice(batches(split.train, PROBLEM.batch_size, 0, 0, last="drop"), 20):
        optimizer.step(lambda x=x, y=y: PROBLEM.loss(module(x), y))
    # The frequencies of single characters alone give a perplexity of 26.
    assert evaluate(module, PROBLEM, held_out, 32)["perplexity"] < 30


def test_a_saved_one_is_profiled_with_no_options(tmp_path):
    curvlab.save(tmp_path / "m.safetensors", PROBLEM.build(0), data=PROBLEM.data, likelihood="categorical")
    analysis = curvlab.analyze(tmp_path / "m.safetensors", samples=4)
    assert analysis.coverage.analyzed == analysis.coverage.parameters == 463_872
    assert all(layer.moments and layer.kfac and layer.tnt for layer in analysis.layers)
    assert math.isclose(analysis["head"].moments.count, 4 * 64)


def test_directions_take_ekfac_for_a_baseline_where_exact_blocks_do_not_fit():
    options = {"steps": 1, "samples": 32, "warm_start": False}
    found = curvlab.compare("text-transformer", ["adamw"], **options)
    assert found.baseline == "ekfac"
    assert any("ekfac is the baseline: the exact Fisher blocks" in note for note in found.notes)
    with pytest.raises(curvlab.CurvlabError, match="the exact Fisher blocks"):
        curvlab.compare("text-transformer", ["adamw"], baseline="block-fisher", **options)
