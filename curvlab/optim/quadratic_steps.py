"""δ = αp + μδ₀ by the quadratic model of the step's own batch, and λ by how well that model predicted the loss (Grosse
2021, sections 4.1 and 6; Martens & Grosse 2015, 6.4, 6.5 and 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from curvlab.capture.batch_record import BatchRecord
from curvlab.capture.closures import Closure
from curvlab.capture.jacobian import jacobian_product
from curvlab.capture.model_call import ModelCall
from curvlab.likelihoods import Likelihood
from curvlab.optim.core import Named, Optimizer
from curvlab.optim.levenberg_marquardt import LevenbergMarquardt, reduction_ratio
from curvlab.optim.quadratic_model import Quadratic, gauss_newton_products, quadratic


@dataclass(frozen=True, eq=False)
class Part:
    """One (micro-)batch of a step.

    Attributes:
        call: how the model was called.
        closure: what called it.
        examples: N.
        loss: of the closure.
        likelihood: of the outputs, with the class axis and the mask of this batch.
        scale: c; the loss is c times the likelihood's, and so is its Gauss-Newton matrix.
    """

    call: ModelCall
    closure: Closure
    examples: int
    loss: Tensor
    likelihood: Likelihood
    scale: Tensor | float


class QuadraticSteps:
    """Chooses an optimizer's steps, or its damping, by the quadratic model M(δ) = ½ δᵀ(G + λI)δ + ∇hᵀδ.

    The basis is p' = −αp and the last step δ₀, so that α = 1 is the step that would be taken anyhow and ratios between
    groups' rates count. Weight decay stays apart from the model: W ← (1 − αγ)W + δ.

    Args:
        optimizer: whose model, groups and names.
        chosen: whether the coefficients are chosen; else the step is the optimizer's own and only judged.
        interval: steps between two judgements of λ; None for a λ that stays.

    Attributes:
        relief: λ's factor, a tensor: λ of a group is relief · group["damping"]. It belongs into the state_dict; δ₀ is
            in the optimizer's state of each parameter, as "previous".
        parts: the batches of the step that is being made.
        gradients: ∇h of all of them together; `update` puts it here.
    """

    def __init__(self, optimizer: Optimizer, chosen: bool, interval: int | None) -> None:
        self.optimizer, self.chosen, self.interval = optimizer, chosen, interval
        self.rule = None if interval is None else LevenbergMarquardt.kfac(interval)
        p = optimizer.parameters()[0]
        self.relief = torch.ones((), dtype=p.dtype, device=p.device)
        self.parts: list[Part] = []
        self.gradients: Named = {}

    def add(self, closure: Closure, calls: Sequence[ModelCall], record: BatchRecord, first: bool) -> None:
        """One more batch of a step.

        Args:
            closure: of the batch.
            calls: of the model while it was measured, the closure's own the last. None where a comparison has shown
                the record of a batch without running it: there is no Part then, and no step either.
            record: what was measured.
            first: whether the batch is the step's first.
        """
        if first:
            self.parts = []
        if calls:
            assert record.loss is not None
            assert record.likelihood is not None
            part = Part(calls[-1], closure, record.examples, record.loss, record.likelihood, record.scale)
            self.parts.append(part)

    def step(self, directions: Named) -> None:
        """W ← (1 − αγ)W + δ, taken back where the loss it leads to is no number; λ ← by ρ when it is due."""
        try:
            self._step(directions, self.gradients)
        finally:
            self.parts, self.gradients = [], {}

    def _step(self, directions: Named, gradients: Named) -> None:
        judged = self.interval is not None and self.optimizer.steps % self.interval == 0
        groups = list(self.optimizer.by_group(directions))
        parameters = {name: p for _, names, ps in groups for name, p in zip(names, ps, strict=True)}
        old = {name: p.clone() for name, p in parameters.items()}
        basis = self._basis(directions)
        delta, change = basis[0], None
        if self.chosen or judged:
            model = self._quadratic(basis, gradients)
            coefficients = model.minimiser() if self.chosen else model.slope.new_tensor([1.0, 0.0])
            delta, change = _combined(basis, coefficients), model.change(coefficients)
        torch._foreach_add_(list(parameters.values()), list(delta.values()))
        if judged and change is not None:
            self._judge(change, parameters, old, delta)
        for group, names, ps in groups:
            if group["weight_decay"]:
                torch._foreach_add_(ps, [old[name] for name in names], alpha=-group["lr"] * group["weight_decay"])
        if self.chosen:
            for name, p in parameters.items():
                self.optimizer.state[p]["previous"] = delta[name]

    def _basis(self, directions: Named) -> tuple[Named, Named]:
        step: Named = {}
        previous: Named = {}
        for group, names, parameters in self.optimizer.by_group(directions):
            step.update(zip(names, torch._foreach_mul([directions[n] for n in names], -group["lr"]), strict=True))
            for name, p in zip(names, parameters, strict=True):
                if "previous" in self.optimizer.state[p]:
                    previous[name] = self.optimizer.state[p]["previous"]
        return step, previous

    def _quadratic(self, basis: tuple[Named, Named], gradients: Named) -> Quadratic:
        damping: dict[str, float | Tensor] = {
            name: self.relief * group["damping"]
            for group, names, _ in self.optimizer.by_group(basis[0])
            for name in names
        }
        total = sum(part.examples for part in self.parts)
        curvature = []
        for part in self.parts:
            z, first = jacobian_product(self.optimizer.model, part.call, basis[0])
            second = torch.zeros_like(first)
            if basis[1]:
                _, second = jacobian_product(self.optimizer.model, part.call, basis[1])
            products = gauss_newton_products(part.likelihood, z, [first, second])
            curvature.append(products * (part.scale * (part.examples / total)))
        return quadratic(gradients, basis, torch.stack(curvature).sum(0), damping)

    def _judge(self, change: Tensor, parameters: Named, old: Named, delta: Named) -> None:
        """λ by ρ; weights and δ as if there had been no step where the loss after it is not finite."""
        assert self.rule is not None
        total = sum(part.examples for part in self.parts)
        before = torch.stack([part.loss * (part.examples / total) for part in self.parts]).sum()
        losses = []
        for part in self.parts:
            with part.call.again(self.optimizer.model):
                losses.append(part.closure().detach() * (part.examples / total))
        ratio = reduction_ratio(before, torch.stack(losses).sum(), change)
        self.relief = self.rule.update(self.relief, ratio.to(self.relief.dtype))
        ok = self.rule.accepts(ratio)
        for name, p in parameters.items():
            p.copy_(torch.where(ok, p, old[name]))
            delta[name] = torch.where(ok, delta[name], 0.0)


def _combined(basis: tuple[Named, Named], coefficients: Tensor) -> Named:
    """αp + μδ₀."""
    p, previous = basis
    alpha, mu = coefficients.unbind()
    return {
        name: alpha.to(d.dtype) * d + (mu.to(d.dtype) * previous[name] if name in previous else 0.0)
        for name, d in p.items()
    }
