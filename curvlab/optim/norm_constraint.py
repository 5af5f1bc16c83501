"""ν = min(1, √(c / Σ α² pᵀ(F̂ + λI)p)): the step −ναp is no longer than √c in the metric of the damped curvature (Ba,
Grosse and Martens 2017, section 5; "clipping" of KFC-pre in Ren 2022, section 3.7.2).

For a preconditioned p = (F̂ + λI)⁻¹ g̃ the product pᵀ(F̂ + λI)p is pᵀg̃, so that nothing has to be multiplied again.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from curvlab.shapes import Float


def squared_length(
    directions: Mapping[str, Tensor], preconditioned: Mapping[str, Tensor], rates: Mapping[str, float]
) -> Float[Tensor, ""]:
    """Σ α² pᵀg̃ = ‖αp‖² in the metric F̂ + λI, over the parameters named in `rates`.

    Args:
        directions: p = (F̂ + λI)⁻¹ g̃ by parameter name.
        preconditioned: g̃, what was preconditioned: the gradient, or its heavy-ball average.
        rates: α of every parameter that counts.

    Raises:
        ValueError: `rates` names no parameter.
    """
    if not rates:
        raise ValueError("the length of a step of no parameters")
    parts = [rate**2 * (directions[name] * preconditioned[name]).sum() for name, rate in rates.items()]
    return torch.stack(parts).sum()


def norm_constraint(squared: Float[Tensor, ""], limit: float) -> Float[Tensor, ""]:
    """ν = min(1, √(c/‖αp‖²)): ν²‖αp‖² ≤ c, and ν = 1 where the step is short enough; nothing is read from the device.

    Args:
        squared: ‖αp‖² of `squared_length`. Zero, and what rounding makes negative, is no length and gives 1; what is
            not finite gives 0.
        limit: c > 0, in units of the loss: half of it is what the step may change the Fisher's quadratic form by.

    Raises:
        ValueError: c is not a positive number.
    """
    if not 0 < limit < float("inf"):
        raise ValueError(f"the norm constraint must be a positive number, not {limit}")
    scale = (limit / squared.clamp(min=0)).sqrt().clamp(max=1.0)
    return scale.where(squared.isfinite(), 0.0)
