"""m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p = m̂/(√v̂ + ε) with m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ) (Kingma & Ba 2015,
Algorithm 1), for tensors of weights, or of what an optimizer learns beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from curvlab.shapes import Float

State = dict[str, Any]
"""{"mean": m, "square": v, "count": t}, and whatever else its owner keeps there."""


def adam(states: Sequence[State], gradients: list[Tensor], settings: Mapping[str, Any]) -> list[Tensor]:
    """p of every tensor, once its g has entered its moments.

    A complex tensor is its real and imaginary parts, numbers apart (as in torch.optim): its moments have a last axis
    of two.

    Args:
        states: one of each tensor; moments that are not there start at zero.
        gradients: g, in the same order.
        settings: "betas" (β₁, β₂) and "eps".
    """
    beta1, beta2 = settings["betas"]
    complex_, gradients = [g.is_complex() for g in gradients], [as_real(g) for g in gradients]
    for state, g in zip(states, gradients, strict=True):
        _advance(state, g)
    means, squares = [state["mean"] for state in states], [state["square"] for state in states]
    torch._foreach_lerp_(means, gradients, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
    found = scaled(means, states, settings)
    torch._foreach_div_(found, [1 - beta1 ** state["count"] for state in states])
    return [torch.view_as_complex(p) if one else p for p, one in zip(found, complex_, strict=True)]


def descend(
    tensors: list[Tensor], states: Sequence[State], gradients: list[Tensor], settings: Mapping[str, Any]
) -> None:
    """x ← x − lr·p of every tensor x, in one call where there is one: many small tensors take longer to start on.

    Args:
        tensors: x, changed in place.
        states: as in `adam`.
        gradients: as in `adam`.
        settings: "lr", "betas" (β₁, β₂) and "eps".
    """
    if any(x.device.type != "cpu" for x in tensors):  # where lists of tensors are one call each
        torch._foreach_add_(tensors, adam(states, gradients, settings), alpha=-settings["lr"])
        return
    for state, g in zip(states, gradients, strict=True):
        _advance(state, g)
    beta1, beta2 = settings["betas"]
    counts = {count: torch.tensor(float(count)) for count in {state["count"] for state in states}}
    torch._fused_adam_(
        tensors,
        gradients,
        [state["mean"] for state in states],
        [state["square"] for state in states],
        [],
        [counts[state["count"]] for state in states],
        lr=settings["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=0.0,
        eps=settings["eps"],
        amsgrad=False,
        maximize=False,
    )


def scaled(tensors: list[Tensor], states: Sequence[State], settings: Mapping[str, Any]) -> list[Tensor]:
    """x/(√v̂ + ε) of every tensor x with the second moment of the steps so far; arguments as in `adam`."""
    roots = _roots(states, settings)
    torch._foreach_add_(roots, settings["eps"])
    found = torch._foreach_div([as_real(x) for x in tensors], roots)
    return [torch.view_as_complex(p) if x.is_complex() else p for x, p in zip(tensors, found, strict=True)]


def slope(state: State, g: Float[Tensor, "*shape"], settings: Mapping[str, Any]) -> Float[Tensor, "*shape"]:
    """∂p/∂g of the step just taken with g: [(1−β₁)/(1−β₁ᵗ) − p·(1−β₂)/(1−β₂ᵗ)·g/√v̂]/(√v̂ + ε), entry by entry.

    It is 0 where √v̂ is 0, which has no derivative there. At t = 1 it nearly vanishes: p is then the sign of g.
    """
    beta1, beta2 = settings["betas"]
    old, fresh = 1 - beta1 ** state["count"], 1 - beta2 ** state["count"]
    root = (state["square"] / fresh).sqrt_()
    damped = root + settings["eps"]
    # [(1−β₁) − m g k/(√v̂ (√v̂ + ε))]/(√v̂ + ε), in as few passes as there can be: FOP does this at every step.
    first, share = (1 - beta1) / old, (1 - beta2) / fresh / old
    found = torch.addcdiv(root.new_tensor(first), state["mean"] * g, root.mul_(damped), value=-share).div_(damped)
    return found.nan_to_num_(0.0, 0.0, 0.0)


def as_real(x: Tensor) -> Tensor:
    """Real and imaginary part in a last axis of two; a real tensor as it is."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def _advance(state: State, g: Tensor) -> None:
    if "mean" not in state:
        state.update(mean=torch.zeros_like(g), square=torch.zeros_like(g), count=0)
    state["count"] += 1


def _roots(states: Sequence[State], settings: Mapping[str, Any]) -> list[Tensor]:
    """√v̂, in memory of their own."""
    roots = list(torch._foreach_sqrt([state["square"] for state in states]))
    beta2 = settings["betas"][1]
    torch._foreach_div_(roots, [(1 - beta2 ** state["count"]) ** 0.5 for state in states])
    return roots
