"""FOP: θ ← θ − ε P∇J with P = MMᵀ or I + MMᵀ, M ← M + ρε(∇J⁽ᵗ⁾∇J⁽ᵗ⁻¹⁾ᵀ + ∇J⁽ᵗ⁻¹⁾∇J⁽ᵗ⁾ᵀ)M (FOP, Alg. 1, eq. 5–9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Unpack

from torch import Tensor, nn

from curvlab.field_types import FROM_ONE, FROM_ZERO
from curvlab.fields import Setting
from curvlab.optim.declared import Params, Rate
from curvlab.optim.fop.hypergradient import HypergradientOptimizer, HypergradientSettings, Part
from curvlab.optim.fop.learned_matrix import LearnedMatrix, dimension
from curvlab.optim.registry import register

LOW_RANK = {"form": ("low-rank",)}


@register("fop", source="FOP, Alg. 1, eq. 5–9")
class FOP(HypergradientOptimizer):
    """First-order preconditioning: a matrix per layer, learned by hypergradient descent; also takes `loss.backward()`.

    A linear layer's matrix acts on its inputs and is shared across outputs; a convolution's acts on the kernel's
    positions and is shared across channels, in every form. Biases and norm parameters follow the base optimizer.

    Args:
        model: the network, or parameters as torch.optim takes them.
        shared: see `HypergradientSettings`.
    """

    def __init__(
        self,
        model: nn.Module | Params,
        *,
        lr: Rate = 0.05,
        form: Annotated[
            Literal["full", "low-rank", "spatial"],
            Setting(
                "full, P = MMᵀ from M = I; low-rank, P = I + MMᵀ from a small random M; spatial, P = MMᵀ for "
                "convolutions and no matrix for linear layers."
            ),
        ] = "full",
        rank: Annotated[
            int, Setting("k of low-rank; a layer has at most its own dimension.", FROM_ONE, when=LOW_RANK)
        ] = 16,
        norm: Annotated[bool, Setting("P scaled to the norm of the identity, so that it only turns (eq. 9).")] = False,
        sigma: Annotated[float, Setting("σ of the entries of M at its start.", FROM_ZERO, when=LOW_RANK)] = 0.01,
        **shared: Unpack[HypergradientSettings],
    ) -> None:
        super().__init__(model, {"lr": lr, "form": form, "rank": rank, "norm": norm, "sigma": sigma}, **shared)

    def part(self, name: str, p: Tensor, group: Mapping[str, Any]) -> Part | None:
        """A matrix for every parameter of two or more axes; in the form "spatial", of three or more."""
        if dimension(p.shape) is None or (group["form"] == "spatial" and p.ndim < 3):
            return None
        rank = int(group["rank"]) if group["form"] == "low-rank" else None
        return Part(name, LearnedMatrix(rank, group["sigma"], group["norm"]))

    @property
    def forms(self) -> dict[str, LearnedMatrix]:
        """Parameter name -> what its matrix M means: `forms[name].operator(matrices[name])` is P."""
        found = {use.name: use.part.form for use in self._uses(dict(self.model.named_parameters()))}
        return {name: form for name, form in found.items() if isinstance(form, LearnedMatrix)}
