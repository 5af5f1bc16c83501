"""Shampoo: D ×_1 (S_1 + εI)^{−1/(2k)} … ×_k (S_k + εI)^{−1/(2k)}, S_i the EMA of mat_i(ḡ) mat_i(ḡ)ᴴ (Ren 2022, Alg.
16)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from curvlab.capture.survey import Survey
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.curvature import Count, Curvature, State
from curvlab.curvatures.tensor_normal import contractions
from curvlab.operators.damp import per_factor
from curvlab.operators.hermitian import embedded, extracted
from curvlab.operators.operator import Dense, Kronecker, Operator
from curvlab.operators.power import powers


class ShampooCurvature(Curvature):
    """Contractions of the batch gradient itself: no output gradients, so that every parameter has a block.

    Args:
        largest_mode: a tensor with a longer mode has none: its factor would be that square.
    """

    of_gradient: ClassVar[bool] = True

    def __init__(self, largest_mode: int = 8192) -> None:
        self.largest_mode = largest_mode

    def recipe(self) -> dict[str, str | float]:
        """Which tensors have factors is not part of what the factors are."""
        return {}

    def blocks(self, found: Survey | None, parameters: Mapping[str, Tensor]) -> list[PreconditionerBlock]:
        """One per parameter with entries: a matrix as it is, a kernel's axes as one mode, a scalar as one entry."""
        made = []
        for name, p in parameters.items():
            shape = tuple(p.shape) if p.ndim < 3 else (p.shape[0], p.shape[1], math.prod(p.shape[2:]))
            if p.numel() and max(shape, default=1) <= self.largest_mode:
                made.append(PreconditionerBlock(name, (), {"weight": name}, shape or (1,)))
        return made

    def average(self, block: PreconditionerBlock, sums: State, count: Count) -> State:
        """mat_i(ḡ) mat_i(ḡ)ᴴ."""
        return contractions(sums["gradient"])

    def operators(
        self, blocks: Sequence[PreconditionerBlock], states: Sequence[State], settings: Sequence[Mapping[str, Any]]
    ) -> list[Operator | None]:
        """The inverse roots; by coupled Newton or `eigh`, whichever is cheaper on the device."""
        damped, exponents = [], []
        for block, state, group in zip(blocks, states, settings, strict=True):
            factors = tuple(Dense(embedded(state[str(mode)])) for mode in range(len(block.shape)))
            damped.append(per_factor(group["damping"])(Kronecker(factors)))
            exponents.append(-1 / (2 * len(block.shape)))
        roots = powers(damped, exponents)
        return [_complex(root) if state["0"].is_complex() else root for root, state in zip(roots, states, strict=True)]


def _complex(root: Operator | None) -> Operator | None:
    if not isinstance(root, Kronecker):
        return root
    return Kronecker(tuple(Dense(extracted(one.matrix)) for one in root.factors if isinstance(one, Dense)))
