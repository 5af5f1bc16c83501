"""Generated datasets: what they promise, the same every time; pairs of problems that differ in nothing but data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from curvlab.data import load
from curvlab.data.linear_map import linear_map
from curvlab.problems.registry import problem
from curvlab.problems.split import Split, fingerprint

PINNED_SHAPES = "2a55cd7faf30ddd90a152fe1fe884772a19c5e78c8ee25fee4dd3bff31d220bd"


@pytest.mark.parametrize("name", ["linear-map", "shapes"])
def test_data_is_the_same_whatever_torch_was_doing(name):
    first = load(name)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    with torch.device("meta"):
        again = load(name)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.y, again.y)
    assert first.x.dtype == torch.float32
    assert first.synthetic


def test_shapes_are_the_same_on_every_machine():
    whole = load("shapes")
    assert fingerprint(Split(whole, whole)) == PINNED_SHAPES


def test_the_linear_map_has_its_condition_number():
    made = linear_map()
    s = np.linalg.svd(made.matrix.numpy(), compute_uv=False)
    np.testing.assert_allclose(s, np.geomspace(1, 1e-5, 60), rtol=1e-9)
    assert (s[0] / s[-1]) == pytest.approx(1e5)
    assert torch.equal(made.y, made.x @ made.matrix.T)
    # 72,000 standard normal numbers: mean within 4/√72000, second moments near those of the identity.
    assert abs(made.x.mean()) < 0.015
    assert torch.linalg.eigvalsh(made.x.T @ made.x / len(made.x)).aminmax() == pytest.approx((0.6, 1.5), abs=0.15)
    assert not torch.equal(linear_map(1).x, made.x)


def test_the_loss_of_the_true_map_is_that_of_rounding():
    split, matrix = problem("factorisation").load(0), linear_map().matrix
    assert (len(split.train), len(split.test)) == (1000, 200)
    loss = problem("factorisation").loss(split.train.x.double() @ matrix.T, split.train.y.double())
    assert loss < 1e-14


def test_shapes_have_the_outlines_that_their_pixels_say():
    whole = load("shapes")
    assert (whole.x >= 128 / 255).squeeze(1).equal(whole.y > 0)
    for picture in whole.y[:100]:
        rows, columns = (picture == 2).nonzero().T
        side = int(rows.max() - rows.min()) + 1
        assert side in (5, 7)
        assert len(rows) == side * (int(columns.max() - columns.min()) + 1) == side**2
    in_front = (whole.y == 1).sum((1, 2))
    assert in_front.max() == 49  # pixels within 4 of a centre
    assert (in_front > 0).float().mean() > 0.9


def test_only_the_data_differs_between_digits_and_inverted_digits():
    plain, inverted = problem("digits-wide-mlp"), problem("digits-inverted-wide-mlp")
    a, b = plain.load(2), inverted.load(2)
    for part, other in ((a.train, b.train), (a.test, b.test)):
        assert torch.equal(other.x, 1 - part.x)
        assert torch.equal(other.y, part.y)
    for name, tensor in plain.build(2).state_dict().items():
        assert torch.equal(tensor, inverted.build(2).state_dict()[name])


@pytest.mark.parametrize("name", ["cifar-cnn9", "cifar-vit"])
def test_cifar_is_read_from_an_archive(name, tmp_path):
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "cifar10.npz", x=x, y=np.arange(6))
    chosen = replace(problem(name), test_size=2)
    split = chosen.load(data=str(tmp_path / "cifar10.npz"))
    assert split.train.x.shape == (4, 3, 32, 32)
    row = int(split.train.y[0])
    np.testing.assert_allclose(split.train.x[0].permute(1, 2, 0).numpy() * 255, x[row], atol=1e-4)
    assert torch.isfinite(chosen.loss(chosen.build()(split.train.x), split.train.y))


def test_voc_is_read_from_an_archive_with_masks(tmp_path):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(3, 3, 32, 32)).astype(np.float32), random.integers(0, 21, (3, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "voc2012.npz", x=x, y=y)
    chosen = replace(problem("voc-unet"), test_size=1, input_shape=(3, 32, 32))
    split = chosen.load(data=str(tmp_path / "voc2012.npz"))
    assert split.train.y.shape == (2, 32, 32)
    with torch.no_grad():
        z = chosen.build()(split.train.x)
    assert torch.isfinite(chosen.loss(z, split.train.y))
    assert all(torch.isfinite(metric(z, split.train.y)) for metric in chosen.metrics.values())
