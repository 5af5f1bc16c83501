"""Products of a likelihood a few positions at a time are those of all positions at once, and hold no more than that."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from curvlab.analyses.live_memory import LivePeak
from curvlab.likelihoods import Categorical
from curvlab.likelihoods import pieces as module
from curvlab.likelihoods.masked import Masked

SHAPES = {"classes": (7, 5), "sequence": (3, 4, 5), "plane": (2, 3, 4, 5), "none": (0, 5)}


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("piece", [1, 11, 10**6])
def test_pieces_cover_every_position_once(name: str, axis: int, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", piece)
    last = torch.zeros(SHAPES[name])
    for at in module.pieces(last):
        assert last[at].numel() <= max(piece, last[0].numel() // max(1, last.shape[1]) if last.ndim > 2 else 5)
        last[at] += 1
    assert bool((last == 1).all())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("masked", [False, True])
def test_products_in_pieces_are_the_products(axis: int, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    z, v, y, u = torch.randn(3, 4, 5), torch.randn(3, 4, 5), torch.randint(0, 5, (3, 4)), torch.rand(3, 4)
    z, v = z.movedim(-1, axis).contiguous(), v.movedim(-1, axis).contiguous()
    likelihood = Masked(Categorical(axis), torch.rand(3, 4) > 0.3) if masked else Categorical(axis)

    def products() -> list[Tensor]:
        sampled = likelihood.sampled_residual(z, u)
        assert torch.equal(sampled, likelihood.residual(z, likelihood.sample(z, u)))
        return [likelihood.loss(z, y), likelihood.residual(z, y), sampled, likelihood.hessian_product(z, v)]

    whole = products()
    monkeypatch.setattr(module, "PIECE", 7)
    for one, other in zip(products(), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-15)
    last = z.movedim(axis, -1)
    torch.testing.assert_close(
        whole[0] * 3,
        sum(
            torch.nn.functional.cross_entropy(last[i, t], y[i, t])
            for i in range(3)
            for t in range(4)
            if not masked or likelihood.mask[i, t]
        ),
    )
    p = last.softmax(-1)
    counted = (p.cumsum(-1) < u[..., None]).sum(-1).clamp(max=4)
    assert torch.equal(likelihood.sample(z, u), counted)


def test_cotangents_of_a_vocabulary_hold_one_of_its_size_and_pieces() -> None:
    z = torch.randn(4, 64, 20_000)
    with LivePeak([z]) as live:
        (cotangent,) = Categorical(-1).cotangents(z, None, "mc", 1, torch.Generator().manual_seed(0))
    wide = z.numel() * z.element_size()
    assert cotangent.shape == z.shape
    assert wide <= live.peak <= wide + 4 * 8 * module.PIECE


def test_the_loss_of_a_sequence_can_be_differentiated_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    z, y = torch.randn(3, 4, 5, requires_grad=True), torch.randint(0, 5, (3, 4))
    monkeypatch.setattr(module, "PIECE", 7)
    (found,) = torch.autograd.grad(Categorical(-1).loss(z, y), z)
    wanted = torch.nn.functional.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="sum") / 3
    torch.testing.assert_close(found, torch.autograd.grad(wanted, z)[0])


def test_a_residual_can_be_differentiated() -> None:
    """d/dz of p − onehot(y) is diag(p) − ppᵀ."""
    z = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y, v = torch.tensor([0, 3, 1]), torch.randn(3, 4, dtype=torch.float64)
    (product,) = torch.autograd.grad(Categorical().residual(z, y), z, v)
    assert torch.allclose(product, Categorical().hessian_product(z.detach(), v), rtol=1e-12, atol=1e-14)


def test_the_loss_of_a_batch_in_which_nothing_counts_is_zero() -> None:
    z = torch.randn(2, 3, 4, requires_grad=True)
    masked = Masked(Categorical(class_axis=-1), torch.zeros(2, 3, dtype=torch.bool))
    loss = masked.loss(z, torch.zeros(2, 3, dtype=torch.long))
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, z)
    assert not gradient.any()
