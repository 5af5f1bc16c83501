"""Hypergradient descent: W ← W − ε r∘u, r ← r + ρε⟨∇J⁽ᵗ⁾, ∇J⁽ᵗ⁻¹⁾⟩, a rate r per layer (S-HD) or per parameter (PP-HD):
the baselines of FOP (FOP, section 4; Baydin et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from torch import Tensor, nn

from curvlab.optim.declared import Params, Rate
from curvlab.optim.fop.hypergradient import HypergradientOptimizer, HypergradientSettings, Part
from curvlab.optim.fop.learned import LearnedRate, LearnedRates
from curvlab.optim.registry import register

SOURCE = "FOP, section 4; Baydin et al. 2017"


@register("s-hd", source=SOURCE)
class HypergradientDescent(HypergradientOptimizer):
    """S-HD: one learned rate per layer, which its weight and bias share.

    The rate is relative to ε and starts at 1, so that schedules and groups go on to work: ε·r is the rate that Baydin
    et al. learn, and Adam's step ρ in r is a step ερ in it. Nothing keeps it positive, as in the papers.

    Args:
        model: the network, or parameters as torch.optim takes them.
        shared: see `HypergradientSettings`.
    """

    def __init__(self, model: nn.Module | Params, *, lr: Rate = 0.05, **shared: Unpack[HypergradientSettings]) -> None:
        super().__init__(model, {"lr": lr}, **shared)

    def part(self, name: str, p: Tensor, group: Mapping[str, Any]) -> Part | None:
        """The rate of the module that the parameter is of."""
        return Part(name.rpartition(".")[0] or name, LearnedRate())


@register("pp-hd", source=SOURCE)
class ParameterwiseHypergradientDescent(HypergradientDescent):
    """PP-HD: a learned rate for every single parameter, a diagonal preconditioner. Arguments as in S-HD."""

    def part(self, name: str, p: Tensor, group: Mapping[str, Any]) -> Part | None:
        """Rates shaped like the parameter."""
        return Part(name, LearnedRates())
