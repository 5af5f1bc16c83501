"""FOP: θ ← θ − ε P∇J with P = MMᵀ or I + MMᵀ, M ← M + ρε(∇J⁽ᵗ⁾∇J⁽ᵗ⁻¹⁾ᵀ + ∇J⁽ᵗ⁻¹⁾∇J⁽ᵗ⁾ᵀ)M (fop Alg. 1, eq. 5–9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Unpack

from torch import Tensor, nn

from curvlab.curvatures.fop import LearnedMatrix, dimension
from curvlab.optim.hypergradient import BOUNDS, HypergradientOptimizer, HypergradientSettings, Part
from curvlab.optim.hyperparameters import RATE, Bound


class FOP(HypergradientOptimizer):
    """First-order preconditioning: a matrix per layer, learned by hypergradient descent; also takes `loss.backward()`.

    A linear layer's matrix acts on its inputs and is shared across outputs; a convolution's acts on the kernel's
    positions and is shared across channels, in every form. Biases and norm parameters follow the base optimizer.

    Args:
        model: the network.
        lr: ε; choose it as for the base optimizer.
        form: "full", P = MMᵀ from M = I; "low-rank", P = I + MMᵀ from a small random M; "spatial", P = MMᵀ for
            convolutions and no matrix for linear layers.
        rank: k of "low-rank"; a layer has at most its own dimension.
        norm: P scaled to the norm of the identity, so that it only rotates (fop eq. 9).
        sigma: σ of the entries of M at the start of "low-rank".
        shared: base, momentum, beta1, beta2, damping, weight_decay, hyper_lr, hyper_optimizer, seed, groups.
    """

    name = "fop"
    bounds: ClassVar[Mapping[str, Bound]] = {
        **BOUNDS,
        "form": Bound(choices=("full", "low-rank", "spatial")),
        "rank": Bound(low=1, whole=True),
        "norm": Bound(choices=(False, True)),
        "sigma": RATE,
    }

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 0.05,
        form: Literal["full", "low-rank", "spatial"] = "full",
        rank: int = 16,
        norm: bool = False,
        sigma: float = 0.01,
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
