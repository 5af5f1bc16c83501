"""The inverses H_A and H_G of a layer: how they start, and how a pair (s, y) changes them (Ren 2022, Alg. 4, 5, 9, 10).

A layer's state is a dictionary of tensors: "input" is H_A; "output" is H_G, or "steps" and "changes" hold its pairs and
"scale" the γ of H₀ = γI; "s" and "y" are the averaged pair, "counts" and "ratio" what became of all pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from curvlab.curvatures.curvature import State
from curvlab.linalg.bfgs import bfgs_update, dot
from curvlab.linalg.by_size import by_size
from curvlab.linalg.inverse import cholesky_inverse, safe_inverse
from curvlab.operators.compact_inverse import compact_inverse
from curvlab.operators.operator import Grouped, Operator
from curvlab.operators.product import along
from curvlab.optim.kbfgs.pair_damping import DAMPINGS
from curvlab.optim.kbfgs.pair_gate import bounded, usable
from curvlab.optim.kbfgs.recipe import Recipe
from curvlab.shapes import Float

COUNTED = ("pairs", "damped", "skipped", "non_finite", "bounded", "input_skipped")
"""Pairs seen; those that Powell's damping changed; those not used, as they failed the gate or the skip rule; those that
were not finite; those with yᵀHy/sᵀy ≤ 2/μ₁; and pairs of the Hessian action that were not used."""


def shifted(a: Float[Tensor, "g d d"], damping: float) -> Float[Tensor, "g d d"]:
    """A + λ_A I."""
    a = a.clone()
    a.diagonal(dim1=1, dim2=2).add_(damping)
    return a


def started(
    recipe: Recipe,
    moments: Sequence[Float[Tensor, "_ _ _"]],
    outputs: Sequence[int],
    lambdas: Sequence[tuple[float, float]],
) -> list[State | None]:
    """H_A = (A + λ_A I)⁻¹, H_G = I or I/λ_G, s = y = 0 of many layers; None where A is not finite.

    Args:
        recipe: of the method.
        moments: A.
        outputs: o.
        lambdas: (λ_A, λ_G).
    """
    inverses = by_size([shifted(a, damped) for a, (damped, _) in zip(moments, lambdas, strict=True)], safe_inverse)
    return [
        _start(recipe, value.contiguous(), height, damped) if bool(ok.all()) else None
        for (value, ok), height, (_, damped) in zip(inverses, outputs, lambdas, strict=True)
    ]


def _start(recipe: Recipe, inverse: Tensor, height: int, damping: float) -> State:
    groups = len(inverse)
    zeros = inverse.new_zeros(groups, height)
    counts = torch.zeros(len(COUNTED), dtype=torch.int64, device=inverse.device)
    state: State = {"input": inverse, "s": zeros, "y": zeros.clone(), "counts": counts, "ratio": inverse.new_zeros(())}
    scale = first_scale(recipe, damping)
    if recipe.pairs is None:
        eye = torch.eye(height, dtype=inverse.dtype, device=inverse.device)
        return {**state, "output": (scale * eye).repeat(groups, 1, 1)}
    none = zeros[:, None][:, :0]
    return {**state, "steps": none, "changes": none.clone(), "scale": inverse.new_full((), scale)}


def first_scale(recipe: Recipe, damping: float) -> float:
    """γ of H₀ = γI: 1 (Alg. 3, 4) or 1/λ_G (Alg. 9, 10)."""
    return 1.0 if recipe.pair_damping == "double" else 1 / damping


def output_inverse(state: State) -> Operator:
    """H_G."""
    if "output" in state:
        return Grouped(state["output"])
    return compact_inverse(state["steps"], state["changes"], state["scale"])


def update_input(state: State, s: Float[Tensor, "g j"], y: Float[Tensor, "g j"]) -> None:
    """H_A by BFGS with s = H_A ā̄ and y = (A + λ_A I)s (Ren 2022, eq. 3.14)."""
    good = usable(s, y)
    state["input"] = bfgs_update(state["input"], s.where(good, 0.0), y.where(good, 0.0))
    state["counts"][COUNTED.index("input_skipped")] += (~good).sum()


def replace_input(state: State, a: Float[Tensor, "g j j"], damping: float) -> None:
    """H_A = (A + λ_A I)⁻¹; the old one where that fails."""
    value, ok = cholesky_inverse(shifted(a, damping))
    state["input"] = value.where(ok[:, None, None], state["input"])
    state["counts"][COUNTED.index("input_skipped")] += (~ok).sum()


def update_output(
    recipe: Recipe, state: State, inverse: Operator, pair: tuple[Tensor, Tensor, Tensor], damping: float
) -> None:
    """s and y averaged, damped, gated; H_G by BFGS, or the pair among those of L-BFGS. Nothing is read from the device.

    Args:
        recipe: of the method.
        state: changed in place.
        inverse: H_G before.
        pair: s = h̄⁺ − h̄, y = ḡ⁺ − ḡ and ḡ, `[g, o]` each.
        damping: λ_G.
    """
    fresh_s, fresh_y, g = pair
    finite = (dot(fresh_s, fresh_s) + dot(fresh_y, fresh_y)).isfinite()
    state["s"] = torch.lerp(fresh_s, state["s"], recipe.decay).where(finite, state["s"])
    state["y"] = torch.lerp(fresh_y, state["y"], recipe.decay).where(finite, state["y"])
    # The rules and BFGS know ratios alone: pairs of length one keep their products away from under- and overflow.
    length = torch.linalg.vector_norm(state["s"], dim=1, keepdim=True)
    s, y = (state[key] / length.where(length > 0, 1.0) for key in ("s", "y"))
    s, y, theta = DAMPINGS[recipe.pair_damping](s, y, _applied(inverse, y), recipe.mu, damping)
    hy = _applied(inverse, y)
    used = finite & usable(s, y, g)
    inside = bounded(s, y, hy, recipe.mu / 2)
    if recipe.skip:
        used = used & bounded(s, y, hy, recipe.mu)
    tallies = (torch.ones_like(finite), finite & (theta < 1), finite & ~used, ~finite, finite & inside)
    state["counts"][: len(tallies)] += torch.stack(tallies).sum((1, 2))
    state["ratio"] = state["ratio"] + (dot(y, hy) / dot(s, y)).where(used, 0.0).sum()
    if recipe.pairs is None:
        state["output"] = bfgs_update(state["output"], s.where(used, 0.0), y.where(used, 0.0))
        return
    for key, new in (("steps", s), ("changes", y)):
        state[key] = _remembered(state[key], new, used, recipe.pairs)
    state["scale"] = torch.full_like(state["scale"], first_scale(recipe, damping))


def _applied(inverse: Operator, v: Float[Tensor, "g d"]) -> Float[Tensor, "g d"]:
    return along(inverse, v.reshape(1, -1, 1)).view_as(v)


def _remembered(
    rows: Float[Tensor, "g p d"], new: Float[Tensor, "g d"], used: Tensor, capacity: int
) -> Float[Tensor, "g q d"]:
    """The last `capacity` rows with the new one; where it is not used, zeros before the oldest in its stead.

    So the number of rows is known without asking the device, and only rows of zeros leave early.
    """
    zero = torch.zeros_like(new)[:, None]
    with_new, without = torch.cat([rows, new[:, None]], dim=1), torch.cat([zero, rows], dim=1)
    return with_new.where(used[..., None], without)[:, -capacity:].contiguous()


def tallies(states: Mapping[str, State]) -> dict[str, Any]:
    """How all pairs (s_G, y_G) were treated so far. Reads the device once.

    Returns:
        "pairs" seen, "damped" by Powell's rule, "skipped" by the gate or the skip rule, "non_finite", "input_skipped"
        of the Hessian action; "bounded", the share of finite pairs with yᵀHy/sᵀy ≤ 2/μ₁; "layers": layer -> "pairs",
        "bounded", and "ratio", the mean of yᵀHy/sᵀy over the pairs that were used (Figure 2.1). A share of nothing is
        None.
    """
    if not states:
        return {}
    read = torch.stack([torch.cat([s["counts"].double(), s["ratio"].double()[None]]) for s in states.values()]).tolist()
    total = dict(zip(COUNTED, map(int, map(sum, zip(*(row[:-1] for row in read), strict=True))), strict=True))
    layers = {}
    for name, row in zip(states, read, strict=True):
        own = dict(zip(COUNTED, map(int, row[:-1]), strict=True))
        used = own["pairs"] - own["skipped"] - own["non_finite"]
        layers[name] = {"pairs": own["pairs"], "bounded": _share(own), "ratio": row[-1] / used if used else None}
    return {**total, "bounded": _share(total), "layers": layers}


def _share(counts: Mapping[str, int]) -> float | None:
    finite = counts["pairs"] - counts["non_finite"]
    return counts["bounded"] / finite if finite else None
