"""(B + λI)⁻¹g with B the exact Gauss–Newton matrix or Hessian of the whole training set: a baseline without blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from curvlab.errors import CurvlabError
from curvlab.likelihoods import Likelihood
from curvlab.linalg.minres import minres
from curvlab.optim.core import Named

Part = Callable[[], tuple[Tensor, Tensor, Likelihood]]
"""(mean loss, output, likelihood of this part) of a part of the data, with the graph."""
Matrix = Literal["ggn", "hessian"]
MOST_PARAMETERS = 100_000
TOLERANCE = 1e-5


class ExactBaseline:
    """Solves (B + λI)p = g by MINRES, which takes symmetric matrices that are not positive definite too.

    B is of the closures given to `settle`, at the weights of that moment: products with it are exact, nothing is
    averaged over steps.

    Args:
        model: the network.
        matrix: which B.
        damping: λ.

    Attributes:
        worst: the largest relative residual ‖(B + λI)p − g‖/‖g‖ of any solve.
    """

    def __init__(self, model: nn.Module, matrix: Matrix, damping: float) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        size = sum(p.numel() for p in self.parameters.values())
        if size > MOST_PARAMETERS:
            raise CurvlabError(
                f"the {matrix} baseline is for small networks, and this one has {size:,} parameters",
                f"the limit is {MOST_PARAMETERS:,}",
                "use --baseline block-fisher or ekfac",
            )
        self.model, self.matrix, self.damping = model, matrix, damping
        self.worst = 0.0

    def solve(self, gradient: Named, closures: Sequence[Part]) -> Named:
        """p for g; each closure returns (loss, output, likelihood) of a part of the data with its graph."""
        names = [name for name in self.parameters if name in gradient]
        like = [self.parameters[name] for name in names]
        b = torch.cat([gradient[name].flatten() for name in names])
        found = minres(
            lambda v: self._product(v, like, closures) + self.damping * v, b, max_iterations=len(b), tolerance=TOLERANCE
        )
        self.worst = max(self.worst, found.residual)
        return dict(zip(names, _split(found.solution, like), strict=True))

    def _product(self, v: Tensor, like: Sequence[Tensor], closures: Sequence[Part]) -> Tensor:
        total, examples = torch.zeros_like(v), 0
        parts = _split(v, like)
        for closure in closures:
            with torch.enable_grad():
                loss, z, likelihood = closure()
                count = len(z)
                made = (
                    self._hessian(loss, like, parts)
                    if self.matrix == "hessian"
                    else self._ggn(z, likelihood, like, parts)
                )
            total += count * torch.cat([one.flatten() for one in made])
            examples += count
        return total / examples

    def _hessian(self, loss: Tensor, like: Sequence[Tensor], parts: Sequence[Tensor]) -> list[Tensor]:
        gradients = torch.autograd.grad(loss, list(like), create_graph=True)
        slope = torch.stack([(g * v).sum() for g, v in zip(gradients, parts, strict=True)]).sum()
        return list(torch.autograd.grad(slope, list(like), materialize_grads=True))

    def _ggn(self, z: Tensor, likelihood: Likelihood, like: Sequence[Tensor], parts: Sequence[Tensor]) -> list[Tensor]:
        """JᵀHJv/N; Jv as the derivative of uᵀJ, linear in u, by u."""
        u = torch.zeros_like(z, requires_grad=True)
        pulled = torch.autograd.grad(z, list(like), u, create_graph=True, materialize_grads=True)
        slope = torch.stack([(g * v).sum() for g, v in zip(pulled, parts, strict=True)]).sum()
        (jv,) = torch.autograd.grad(slope, u, retain_graph=True)
        h = likelihood.hessian_product(z.detach(), jv)
        return list(torch.autograd.grad(z, list(like), h / len(z), materialize_grads=True))


def _split(v: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    return [part.view_as(p) for part, p in zip(torch.split(v, [p.numel() for p in like]), like, strict=True)]
