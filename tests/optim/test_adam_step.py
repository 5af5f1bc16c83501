"""Adam's descent on many small tensors at once, against torch's own."""

from __future__ import annotations

import torch

from curvlab.optim.adam_step import adam, descend

SETTINGS = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6}


def test_it_is_torchs_adam_whatever_the_ages(float64) -> None:
    shapes = [(3, 3), (9, 9), (), (1, 1), (40, 7)]
    ours = [torch.randn(shape) for shape in shapes]
    theirs = [x.clone() for x in ours]
    reference = [torch.optim.Adam([x], 0.01, (0.8, 0.95), eps=1e-6) for x in theirs]
    states = [{} for _ in ours]
    for step in range(8):
        chosen = [i for i in range(len(ours)) if step >= i]  # each joins a step later than the one before
        gradients = [torch.randn(shapes[i]) for i in chosen]
        descend([ours[i] for i in chosen], [states[i] for i in chosen], gradients, SETTINGS)
        for i, g in zip(chosen, gradients, strict=True):
            theirs[i].grad = g.clone()
            reference[i].step()
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14)
    assert [state["count"] for state in states] == [8, 7, 6, 5, 4]


def test_it_is_a_step_along_what_adam_says(float64) -> None:
    x, gradients, one, two = torch.randn(4, 4), torch.randn(5, 4, 4), {}, {}
    moved = x.clone()
    for g in gradients:
        (p,) = adam([one], [g], SETTINGS)
        x = x - 0.01 * p
        descend([moved], [two], [g], SETTINGS)
    torch.testing.assert_close(moved, x, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(two["mean"], one["mean"])
    torch.testing.assert_close(two["square"], one["square"])


def test_on_other_devices_it_goes_by_lists() -> None:
    """No device but the processor is here: only that the calls exist and that the state comes about."""
    xs = [torch.ones(3, 3, device="meta"), torch.ones((), device="meta")]
    states = [{}, {}]
    for _ in range(2):
        descend(xs, states, [torch.ones_like(x) for x in xs], SETTINGS)
    assert [state["count"] for state in states] == [2, 2]
    assert [state["square"].shape for state in states] == [(3, 3), ()]
