"""K-FAC: F ≈ G ⊗ A per layer, direction (G + …)⁻¹ m (A + …)⁻¹ (Grosse 2021, Alg. 1, eq. 23, 24; Ren 2022, Alg. 7,
12)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from curvlab.capture.batch_record import Samples
from curvlab.capture.sample import Sample
from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock, Use, all_matrices, is_dense, tied_matrices
from curvlab.curvatures.curvature import Count, Curvature, State
from curvlab.linalg.gram import finished, upper_gram
from curvlab.operators.damp import factored
from curvlab.operators.damped_inverse import damped_inverses
from curvlab.operators.eigenbasis import eigenbases
from curvlab.operators.operator import Diagonal, Grouped, GroupedKronecker, Kronecker, Operator
from curvlab.operators.power import powers

DampingRule = Literal["factored", "exact", "equal"]
"""How λ enters: per factor by π (eq. 24), in the eigenbasis (eq. 23), or per factor with π = 1 (Ren 2022, Alg. 7)."""


class KfacCurvature(Curvature):
    """Factors A = 1/N Σ āāᵀ and G = 1/(NT) Σ ggᵀ of every layer that is a dense map.

    A weight with several uses (an embedding table that is the output layer as well) has one pair of factors for the
    sum of the uses' Kronecker products, see `joined`.

    Args:
        rule: how damping enters.
        kfac_approx: "expand" or "reduce".
        fisher_type: targets of the output gradients; "empirical" is KFAC-EF.
        mc_samples: sampled targets per example.
    """

    holds_inputs: ClassVar[bool] = False

    def __init__(
        self,
        rule: DampingRule = "factored",
        kfac_approx: str = "expand",
        fisher_type: str = "mc",
        mc_samples: int = 1,
    ) -> None:
        self.rule, self.kfac_approx = rule, kfac_approx
        self.fisher_type, self.mc_samples = fisher_type, mc_samples

    def recipe(self) -> dict[str, str | float]:
        """How damping enters is not part of what the averages are of."""
        return {"kfac_approx": self.kfac_approx, "fisher_type": self.fisher_type}

    def blocks(self, found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
        """One per dense layer, or per group of layers that share their weight."""
        return [one for one in tied_matrices(found) if is_dense(one)]

    def profiled(self, found: Survey) -> list[PreconditionerBlock]:
        """Every layer, scales of norms too, and each use of a shared weight by itself."""
        return all_matrices(found)

    def inputs(self, block: PreconditionerBlock, samples: Samples) -> State:
        """Σ aaᵀ (upper triangle) of every use, and Σ a where there is a bias."""
        sums: State = {}
        for number, use in _seen(block, samples):
            sample = samples[use.block.name]
            total, sums[f"input{number}"] = self._input_sums(sample)
            if sample.layer.biased:
                sums[f"mean{number}"] = total
        return sums

    def output_gradients(self, block: PreconditionerBlock, samples: Samples, passed: int, averages: State) -> State:
        """Σ ggᵀ (upper triangle) of every use."""
        return {
            f"gradient{number}": self._gradient_sum(samples[use.block.name]) for number, use in _seen(block, samples)
        }

    def average(self, block: PreconditionerBlock, sums: State, count: Count) -> State:
        """A over examples, G over rows ("reduce": over examples)."""
        factors = []
        for number, use in enumerate(block.uses):
            key = number or ""
            if f"gradient{key}" in sums and f"input{key}" in sums:
                rows = max(1, self._rows(use, count))
                g = finished(sums[f"gradient{key}"], rows, count.dtype)
                factors.append((use, self.input_factor(use, sums, key, count), g))
        if len(block.uses) == 1:
            return {"input": factors[0][1], "gradient": factors[0][2]} if factors else {}
        return joined(block, factors) if factors else {}

    def input_factor(self, use: Use, sums: State, key: int | str, count: Count) -> Tensor:
        """A, with the bias's 1; a diagonal where it was summed so."""
        second, mean = sums[f"input{key}"], sums.get(f"mean{key}")
        if second.ndim == 2:
            return second.to(count.dtype or second.dtype) / count.examples
        border = None if mean is None else (mean, float(self._rows(use, count)))
        return finished(second, count.examples, count.dtype, border)

    def bytes(self, block: PreconditionerBlock) -> int:
        """A and G."""
        groups, outputs, inputs = block.shape
        return 8 * groups * (outputs**2 + inputs**2)

    def operators(
        self, blocks: Sequence[PreconditionerBlock], states: Sequence[State], settings: Sequence[Mapping[str, Any]]
    ) -> list[Operator | None]:
        """(G ⊗ A + λI)⁻¹, or its factored stand-in."""
        plain = [kronecker(state) for state in states]
        if self.rule == "exact":
            return damped_inverses(eigenbases(plain), settings)
        pi: Literal["trace"] | float = "trace" if self.rule == "factored" else 1.0
        damped = [factored(group["damping"], pi)(operator) for operator, group in zip(plain, settings, strict=True)]
        return powers(damped, [-1.0] * len(damped))

    def _rows(self, use: Use, count: Count) -> int:
        """Rows of the sums: "reduce" has made one of the positions of an example."""
        return count.examples if self.kfac_approx == "reduce" else count.rows[use.block.name]

    def _input_sums(self, sample: Sample) -> tuple[Tensor, Tensor]:
        if self.kfac_approx == "reduce":
            features = sample.mean_features()
            return features.sum(1), upper_gram(features)
        moments = sample.feature_moments()
        return moments.total, moments.second

    def _gradient_sum(self, sample: Sample) -> Tensor:
        if self.kfac_approx == "reduce":
            return upper_gram(sample.output_gradients.sum(2))
        return sample.output_gradient_moment


def _seen(block: PreconditionerBlock, samples: Samples) -> Iterator[tuple[int | str, Use]]:
    """The uses that samples are of, each with what its sums are called by; the first's have no number."""
    for number, use in enumerate(block.uses):
        if use.block.name in samples:
            yield number or "", use


def joined(block: PreconditionerBlock, factors: Sequence[tuple[Use, Tensor, Tensor]]) -> State:
    """G ⊗ A ≈ Σ_u G_u ⊗ A_u with G = Σ_u t_u G_u / tr G_u, A = Σ_u (t_u / t) A_u / tr A_u, t_u = tr G_u tr A_u.

    t = Σ t_u is the trace of the sum, which is kept, as are both of its partial traces: no other Kronecker product of
    positive matrices does that. Cross terms between the uses are left out, as K-FAC leaves out those between positions.

    Args:
        block: whose matrix W̄ the factors are put in the coordinates of.
        factors: (use, A_u, G_u): a transposed use multiplies with Wᵀ, so that its A is an outputs' factor of W.
    """
    outputs, inputs = block.shape[1], block.shape[2]
    pairs = []
    for use, a, g in factors:
        a = torch.diag_embed(a) if a.ndim == 2 else a
        left, right = (a, g) if use.transposed else (g, a)
        pairs.append((_padded(left, outputs), _padded(right, inputs)))
    traces = [[_trace(left), _trace(right)] for left, right in pairs]
    shares = torch.stack([left * right for left, right in traces])
    total = shares.sum(0).clamp(min=torch.finfo(shares.dtype).tiny)
    gradient = torch.stack([share * _unit(g, t) for share, (g, _), (t, _) in zip(shares, pairs, traces, strict=True)])
    a = torch.stack([share / total * _unit(a, t) for share, (_, a), (_, t) in zip(shares, pairs, traces, strict=True)])
    return {"input": a.sum(0), "gradient": gradient.sum(0)}


def _padded(factor: Tensor, size: int) -> Tensor:
    """Zeros for the bias that this use does not have."""
    missing = size - factor.shape[-1]
    return F.pad(factor, (0, missing, 0, missing)) if missing else factor


def _trace(factor: Tensor) -> Tensor:
    return factor.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]


def _unit(factor: Tensor, trace: Tensor) -> Tensor:
    return torch.where(trace > 0, factor / trace, torch.zeros_like(factor))


def kronecker(state: State) -> Operator:
    """G ⊗ A as it acts on W̄ `[g, o, i]`; a one-hot input factor is diagonal."""
    a, g = state["input"], state["gradient"]
    if a.ndim == 2:
        return Kronecker((Grouped(g), Diagonal(a[0])))
    return GroupedKronecker((Grouped(g), Grouped(a)))
