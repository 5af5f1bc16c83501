"""K-FAC: W̄ ← W̄ − α((G + …)⁻¹ m (A + …)⁻¹ + γW̄) (Grosse 2021, Alg. 1; Ren 2022, Alg. 7, 12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Unpack

import torch
from torch import nn

from curvlab.capture.batch_record import BatchRecord
from curvlab.capture.closures import Closure
from curvlab.capture.model_call import ModelCall
from curvlab.curvatures.blocks import PreconditionerBlock
from curvlab.curvatures.kfac import DampingRule, KfacCurvature
from curvlab.errors import CurvlabError
from curvlab.field_types import FROM_ONE, POSITIVE
from curvlab.fields import Setting
from curvlab.likelihoods import Likelihood
from curvlab.optim.core import Named
from curvlab.optim.declared import Damping, Rate
from curvlab.optim.model_calls import at_calls
from curvlab.optim.norm_constraint import norm_constraint as shrinkage
from curvlab.optim.norm_constraint import squared_length
from curvlab.optim.preconditioned import Preconditioned
from curvlab.optim.quadratic_steps import QuadraticSteps
from curvlab.optim.registry import register
from curvlab.optim.saved_state import moved
from curvlab.optim.shared import FisherType, McSamples, Shared

StepSize = Literal["fixed", "mvp"]
"""α by hand, with heavy ball; or α and the momentum from exact curvature-vector products (Grosse 2021, eq. 26, 27)."""


@register("kfac", source="Grosse 2021, Alg. 1; Ren 2022, Alg. 7, 12")
class KFAC(Preconditioned):
    """m ← μm + g per layer, p = (G ⊗ A + damping)⁻¹ m; layers that are no dense maps follow m.

    Two options choose steps by the loss's quadratic model on the step's own batch. The field calls both unreliable on
    small batches, and `step_size="mvp"` doubles the cost of a step; `adapt_damping` runs the closure once more on every
    `damping_interval`-th step, with the same dropout masks and leaving batch norm's statistics alone.

    Args:
        model: the network.
        likelihood: of its output ("categorical", "bernoulli", "gaussian"); not needed for the empirical Fisher.
        shared: see `Shared`.
    """

    def __init__(
        self,
        model: nn.Module,
        likelihood: str | Likelihood | None = None,
        *,
        lr: Rate = 0.03,
        damping: Damping = 1e-2,
        rule: Annotated[
            DampingRule,
            Setting(
                "How λ enters: factored by π (Grosse 2021, eq. 24), exact (eq. 23), equal (π = 1; Ren 2022, Alg. 7)."
            ),
        ] = "factored",
        kfac_approx: Annotated[
            Literal["expand", "reduce"], Setting("How positions that share weights are treated.")
        ] = "expand",
        fisher_type: FisherType = "mc",
        mc_samples: McSamples = 1,
        norm_constraint: Annotated[
            float | None,
            Setting(
                "c: the direction is shrunk to α²pᵀ(F̂ + λI)p ≤ c (Ba, Grosse & Martens 2017); with mvp the quadratic "
                "model chooses the length.",
                POSITIVE,
                when={"step_size": ("fixed",)},
            ),
        ] = None,
        step_size: Annotated[
            StepSize,
            Setting(
                "fixed, or mvp: δ = −αp + μδ₀ with both numbers from a 2×2 system (Grosse 2021, eq. 27); momentum is "
                "not used then, and lr only by its ratios between groups.",
                of_steps=True,
            ),
        ] = "fixed",
        adapt_damping: Annotated[
            bool,
            Setting("λ by the Levenberg–Marquardt rule, ω = (19/20)^T (Martens & Grosse 2015, 6.5).", of_steps=True),
        ] = False,
        damping_interval: Annotated[
            int, Setting("T: steps between its judgements.", FROM_ONE, when={"adapt_damping": (True,)})
        ] = 5,
        **shared: Unpack[Shared],
    ) -> None:
        curvature = KfacCurvature(rule, kfac_approx, fisher_type, mc_samples)
        super().__init__(model, curvature, likelihood, lr, damping, **shared)
        chosen = step_size == "mvp"
        self.norm_constraint = norm_constraint
        self.quadratics: QuadraticSteps | None = None
        if chosen or adapt_damping:
            if self.likelihood is None:
                raise CurvlabError(
                    "kfac: step_size='mvp' and adapt_damping need the loss's Hessian", do="give likelihood="
                )
            interval = damping_interval if adapt_damping else None
            self.quadratics = QuadraticSteps(self, chosen, interval)
            self.scaled = True

    def measure(self, closure: Closure, first: bool) -> BatchRecord:
        """As every preconditioned optimizer; the quadratic model must be able to run the batch again."""
        if self.quadratics is None or self.warming:
            return super().measure(closure, first)
        calls: list[ModelCall] = []
        with at_calls(self.model, lambda args, kwargs: calls.append(ModelCall.of(self.model, args, kwargs))):
            record = super().measure(closure, first)
        self.quadratics.add(closure, calls, record, first)
        return record

    def update(self, gradients: Named) -> Named:
        """P m, no longer than the norm constraint allows; P g where the momentum is chosen with the step."""
        if self.quadratics is not None:
            self.quadratics.gradients = gradients
            if self.quadratics.chosen:
                return self.direction(gradients)
        averaged = self.heavy_ball(gradients)
        directions = self.direction(averaged)
        if self.norm_constraint is None or not self.blocks:
            return directions
        inside = self.in_use.parameters()
        rates = {n: group["lr"] for group, names, _ in self.by_group(directions) for n in names if n in inside}
        shrunk = shrinkage(squared_length(directions, averaged, rates), self.norm_constraint)
        return dict(zip(directions, torch._foreach_mul(list(directions.values()), shrunk), strict=True))

    def move(self, directions: Named) -> None:
        """W ← (1 − αγ)W − αp, or by the quadratic model."""
        if self.quadratics is None:
            super().move(directions)
        else:
            self.quadratics.step(directions)

    def group_of(self, block: PreconditionerBlock) -> Mapping[str, Any]:
        """The block's group, with λ as it has been adapted."""
        group = super().group_of(block)
        if self.quadratics is None or self.quadratics.rule is None:
            return group
        return {**group, "damping": self.quadratics.relief * group["damping"]}

    def current_damping(self) -> float:
        """λ of the first group, as it has been adapted."""
        relief = 1.0 if self.quadratics is None else self.quadratics.relief.item()
        damping: float = self.param_groups[0]["damping"]
        return relief * damping

    def saved_state(self) -> dict[str, Any]:
        """With the factor by which λ has been adapted."""
        state = super().saved_state()
        return state if self.quadratics is None else {**state, "relief": self.quadratics.relief}

    def restore_state(self, state_dict: Mapping[str, Any]) -> None:
        """As `Preconditioned.restore_state`."""
        super().restore_state(state_dict)
        if self.quadratics is not None and "relief" in state_dict:
            self.quadratics.relief = moved(state_dict["relief"], self.quadratics.relief)
