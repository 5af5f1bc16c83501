"""What no implementation of a method can leave out: its matrix products and decompositions, as bare torch calls.

floor = one SGD-m step + statistics/T1 + application + renewal/T2, sums of the pieces below. Elementwise work is not in
it, nor is the moving averages' reading and writing, which is counted on its own ("traffic"). A layer maps n inputs a
[n, i] to [n, o]; its output gradients are g [n, o], its weight W [o, i], the mean gradient Ḡ [o, i]; ā has a 1
appended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from curvlab.linalg.gram import upper_gram
from curvlab.linalg.roots import coupled_newton

Piece = Callable[[], object]
FACTORS = ("A, G as full squares", "A, G as triangles")
CONTRACTIONS = ("ḠḠᵀ, ḠᵀḠ as full squares", "ḠḠᵀ, ḠᵀḠ as triangles")
ROOTS = ("inverse roots by eigh", "inverse roots by coupled Newton")


@dataclass(frozen=True)
class Floor:
    """Names of pieces. A tuple of names in place of a name is a choice, of which the fastest counts.

    Attributes:
        statistics: every T1 steps.
        application: every step.
        renewal: every T2 steps.
        traffic: every T1 steps, where memory traffic counts.
    """

    statistics: tuple[str | tuple[str, ...], ...]
    application: str
    renewal: str | tuple[str, ...]
    traffic: str

    def per_step(self, cost: Mapping[str, float], intervals: tuple[int, int], traffic: bool = False) -> float:
        """Mean cost of a step beyond SGD-m's, from the cost of each piece, at (T1, T2)."""

        def of(name: str | tuple[str, ...]) -> float:
            return cost[name] if isinstance(name, str) else min(cost[one] for one in name)

        t1, t2 = intervals
        statistics = sum(of(name) for name in self.statistics) + (of(self.traffic) if traffic else 0.0)
        return statistics / t1 + of(self.application) + of(self.renewal) / t2


FLOORS = {
    "kfac": Floor(("output gradients", FACTORS), "G⁻¹ m A⁻¹", "A⁻¹, G⁻¹ by Cholesky", "averages of A, G"),
    "ekfac": Floor(
        ("output gradients", FACTORS, "(g Q_G)²ᵀ (ā Q_A)²"),
        "Q_G (Q_Gᵀ m Q_A / S) Q_Aᵀ",
        "eigh of A, G",
        "averages of A, G, S",
    ),
    "tnt": Floor(
        ("output gradients", "weight gradients", CONTRACTIONS), "U₁ m U₂", "U⁻¹ by Cholesky", "averages of ḠḠᵀ, ḠᵀḠ"
    ),
    "shampoo": Floor((CONTRACTIONS,), "U₁ m U₂", ROOTS, "averages of ḠḠᵀ, ḠᵀḠ"),
}
"""By optimizer. TNT and Shampoo also have a factor per bias, whose root or inverse is among theirs."""


@dataclass(frozen=True)
class Layer:
    """What batches show of one linear layer: a, g and W of the last, Ḡ and the bias's gradient of all."""

    a: Tensor
    g: Tensor
    w: Tensor
    gradients: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]


def network_layers(
    model: nn.Sequential, loss: Callable[[Tensor, Tensor], Tensor], batches: Sequence[Tensor]
) -> list[Layer]:
    """Run the autoencoder on the batches; output gradients are per example, ∂ℓ_n/∂s_n."""
    linear = [module for module in model if isinstance(module, nn.Linear)]
    seen: list[list[tuple[Tensor, Tensor]]] = []
    for x in batches:
        z, inputs, outputs = x, [], []
        for module in model:
            if module in linear:
                inputs.append(z.detach())
                outputs.append(z := module(z))
            else:
                z = module(z)
        output_gradients = torch.autograd.grad(loss(z, x), outputs)
        seen.append([(a, g * len(x)) for a, g in zip(inputs, output_gradients, strict=True)])
    return [
        Layer(
            *own[-1],
            module.weight.detach(),
            tuple(g.T @ a / len(a) for a, g in own),
            tuple(g.mean(0) for _, g in own),
        )
        for module, own in zip(linear, zip(*seen, strict=True), strict=True)
    ]


@torch.no_grad()
def pieces(layers: Sequence[Layer], damping: float) -> dict[str, Piece]:
    """Every piece by name: one call does all layers, products into memory that is there already.

    What is decomposed are the real factors of the batches, with `damping` on their diagonals.
    """
    rows = [x for layer in layers for x in (nn.functional.pad(layer.a, (0, 1), value=1.0), layer.g)]
    modes = [x for layer in layers for x in (layer.gradients[-1].T.contiguous(), layer.gradients[-1])]
    factors = [_damped([x / len(x) ** 0.5], damping) for x in rows]
    tensors = [
        _damped(parts, damping)
        for layer in layers
        for parts in ([d.T for d in layer.gradients], layer.gradients, [b[None] for b in layer.biases])
    ]
    sides = [(g, torch.randn(len(g), len(a)), a) for a, g in zip(factors[::2], factors[1::2], strict=True)]
    modewise = [(u, layer.w, v) for u, v, layer in zip(tensors[::3], tensors[1::3], layers, strict=True)]
    rotations = list(zip(rows, factors, strict=True))
    scales = [(g.T, a) for a, g in zip(rows[::2], rows[1::2], strict=True)]
    return {
        "output gradients": _products([(layer.g, layer.w) for layer in layers[1:]]),
        "weight gradients": _products([(layer.g.T, layer.a) for layer in layers]),
        FACTORS[0]: _products([(x.T, x) for x in rows]),
        FACTORS[1]: lambda: [upper_gram(x) for x in rows],
        CONTRACTIONS[0]: _products([(x.T, x) for x in modes]),
        CONTRACTIONS[1]: lambda: [upper_gram(x) for x in modes],
        "(g Q_G)²ᵀ (ā Q_A)²": _products(rotations + scales),
        "G⁻¹ m A⁻¹": _two_sided(sides),
        "U₁ m U₂": _two_sided(modewise),
        "Q_G (Q_Gᵀ m Q_A / S) Q_Aᵀ": _two_sided(sides + sides),
        "A⁻¹, G⁻¹ by Cholesky": lambda: [torch.cholesky_inverse(torch.linalg.cholesky(x)) for x in factors],
        "U⁻¹ by Cholesky": lambda: [torch.cholesky_inverse(torch.linalg.cholesky(x)) for x in tensors],
        "eigh of A, G": lambda: [torch.linalg.eigh(x) for x in factors],
        ROOTS[0]: lambda: [_eigh_root(x) for x in tensors],
        ROOTS[1]: lambda: [coupled_newton(x[None], 4) for x in tensors],
        "averages of A, G": _averages(factors),
        "averages of A, G, S": _averages([*factors, *(m for _, m, _ in sides)]),
        "averages of ḠḠᵀ, ḠᵀḠ": _averages(tensors),
    }


def _damped(parts: Sequence[Tensor], damping: float) -> Tensor:
    """The mean of xᵀx over the parts, plus `damping` on the diagonal."""
    mean = torch.stack([x.T @ x for x in parts]).mean(0)
    mean.diagonal().add_(damping)
    return mean


def _products(pairs: Sequence[tuple[Tensor, Tensor]]) -> Piece:
    """x y of every pair."""
    outs = [x.new_empty(len(x), y.shape[1]) for x, y in pairs]
    return lambda: [torch.mm(x, y, out=out) for (x, y), out in zip(pairs, outs, strict=True)]


def _two_sided(triples: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Piece:
    """u m v of every triple."""
    outs = [(torch.empty_like(m), torch.empty_like(m)) for _, m, _ in triples]

    def run() -> None:
        for (u, m, v), (half, out) in zip(triples, outs, strict=True):
            torch.mm(torch.mm(u, m, out=half), v, out=out)

    return run


def _eigh_root(x: Tensor) -> Tensor:
    """x^(−1/4) = SSᵀ with S = Q Λ^(−1/8)."""
    values, vectors = torch.linalg.eigh(x)
    return upper_gram((vectors * values.clamp(min=values[-1] * 1e-7) ** -0.125).T)


def _averages(held: Sequence[Tensor]) -> Piece:
    """x ← βx + (1 − β)y."""
    pairs = [(x.clone(), x.clone()) for x in held]
    return lambda: [x.lerp_(y, 0.1) for x, y in pairs]
