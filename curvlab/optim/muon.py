"""Muon: B ← μB + (1 − μ)g, W ← (1 − αγ)W − α r NS(μB + (1 − μ)g) for hidden matrices, AdamW for all else (Jordan et
al. 2024; Liu et al. 2025)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from curvlab.field_types import DECAY, FROM_ONE
from curvlab.fields import Setting
from curvlab.optim.adam import Betas, Eps
from curvlab.optim.adam_step import adam, scaled
from curvlab.optim.core import Named, Optimizer
from curvlab.optim.declared import Params, Rate, WeightDecay
from curvlab.optim.newton_schulz import newton_schulz
from curvlab.optim.registry import register


@register("muon", source="Jordan et al. 2024; Liu et al. 2025")
class Muon(Optimizer):
    """B ← μB + (1 − μ)g, p = r·NS(μB + (1 − μ)g): every singular value near 1, of a size that AdamW's rate fits.

    Hidden matrices are the weights of two axes and more, a kernel as (out, in·kh·kw), but for embeddings and the last
    layer. These, biases and norms follow AdamW with the same rate.

    Args:
        model: the network, or parameters as torch.optim takes them; of these every matrix is a hidden one.
        groups: parameter groups with settings of their own.
    """

    takes_parameters = averages_in_order = True

    def __init__(
        self,
        model: nn.Module | Params,
        lr: Rate = 1e-3,
        momentum: Annotated[float, Setting("μ of the gradient's average B.", DECAY)] = 0.95,
        nesterov: Annotated[bool, Setting("Whether the step looks ahead: μB + (1 − μ)g; else it is B.")] = True,
        ns_steps: Annotated[int, Setting("Iterations of Newton–Schulz.", FROM_ONE, formerly=("iterations",))] = 5,
        adjust_lr_fn: Annotated[
            Literal["match_rms_adamw", "original"],
            Setting(
                "r for W of A rows and B columns: match_rms_adamw is 0.2√max(A, B), by which steps are as large as "
                "AdamW's; original is √max(1, A/B).",
                formerly=("adjust",),
            ),
        ] = "match_rms_adamw",
        precision: Annotated[
            Literal["bfloat16", "weights"],
            Setting("What Newton–Schulz computes in: bfloat16, or the type of the weights."),
        ] = "bfloat16",
        weight_decay: WeightDecay = 0.1,
        betas: Annotated[Betas, Setting("β₁ and β₂ of AdamW.")] = (0.9, 0.999),
        eps: Annotated[Eps, Setting("ε of AdamW.")] = 1e-8,
        groups: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
            "precision": precision,
            "weight_decay": weight_decay,
            "betas": betas,
            "eps": eps,
        }
        super().__init__(model, defaults, groups)
        self.hidden = frozenset(_hidden(self.model))

    def update(self, gradients: Named) -> Named:
        """r·NS of the average, or AdamW's step."""
        directions: Named = {}
        for group, names, parameters in self.by_group(gradients):
            rest = []
            for name, p in zip(names, parameters, strict=True):
                if name not in self.hidden:
                    rest.append((name, self.state[p]))
                    continue
                g, state = gradients[name], self.state[p]
                if "average" not in state:
                    state["average"] = torch.zeros_like(p)
                average = state["average"].lerp_(g, 1 - group["momentum"])
                directions[name] = _step(g.lerp(average, group["momentum"]) if group["nesterov"] else average, group)
            if rest:
                moved = adam([state for _, state in rest], [gradients[name] for name, _ in rest], group)
                directions.update(zip((name for name, _ in rest), moved, strict=True))
        return directions

    def direction(self, gradients: Named) -> Named:
        """r·NS(g) for hidden matrices, g/(√v̂ + ε) for all else; that is g before the first step."""
        directions = dict(gradients)
        for group, names, parameters in self.by_group(gradients):
            for name, p in zip(names, parameters, strict=True):
                if name in self.hidden:
                    directions[name] = _step(gradients[name], group)
                elif "square" in self.state.get(p, {}):
                    (directions[name],) = scaled([gradients[name]], [self.state[p]], group)
        return directions

    def coverage(self) -> dict[str, str]:
        """Parameter name -> this method's name, or that it follows AdamW."""
        names = (self.names[id(p)] for p in self.parameters())
        return {name: self.name if name in self.hidden else "adamw: no hidden matrix" for name in names}


def _step(average: Tensor, group: Mapping[str, Any]) -> Tensor:
    matrix = average.flatten(1)
    rows, columns = matrix.shape
    matching = group["adjust_lr_fn"] == "match_rms_adamw"
    ratio = 0.2 * math.sqrt(max(rows, columns)) if matching else math.sqrt(max(1, rows / columns))
    dtype = torch.bfloat16 if group["precision"] == "bfloat16" else average.dtype
    return newton_schulz(matrix, group["ns_steps"], dtype).to(average.dtype).mul_(ratio).reshape(average.shape)


def _hidden(model: nn.Module) -> list[str]:
    """Names of the matrices; without embeddings and the weight of the last layer, where there are layers to tell."""
    matrices = [name for name, p in model.named_parameters() if p.ndim >= 2]
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    outside = {*tables, *(id(layer.weight) for layer in layers[-1:])}
    byname = dict(model.named_parameters())
    return [name for name in matrices if id(byname[name]) not in outside]
