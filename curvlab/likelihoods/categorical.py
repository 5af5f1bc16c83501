"""Categorical: ℓ = −log softmax(z)_y, Hessian diag(p) − ppᵀ (docs/curvature.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from curvlab.errors import CurvlabError
from curvlab.likelihoods.likelihood import Likelihood
from curvlab.likelihoods.pieces import Place, pieces


class Categorical(Likelihood):
    """Softmax cross entropy over class scores; more than one position per example is that many loss terms, summed.

    Args:
        class_axis: axis of the classes in z: 1 as in torch's `cross_entropy`, -1 as language models have it. None
            (default) leaves it to be found from outputs and targets (`curvlab.likelihoods.class_axis`), or from the
            gradient of a loss; until it is, axis 1 stands.
    """

    name = "categorical"

    def __init__(self, class_axis: int | None = None) -> None:
        self.class_axis = 1 if class_axis is None else class_axis
        self.found = class_axis is not None

    def check(self, z: Tensor) -> None:
        """z needs an axis of at least two classes."""
        super().check(z)
        if z.ndim < 2 or z.shape[self.class_axis] < 2:
            raise CurvlabError(
                f"the model's output has shape {tuple(z.shape)}",
                "cross entropy needs at least two class scores per example",
            )

    def check_targets(self, z: Tensor, y: Tensor) -> None:
        """Class numbers are 0 to the number of classes, less one."""
        if y.shape == self._last(z).shape[:-1] and not y.is_floating_point() and y.numel():
            low, high = (int(bound) for bound in y.aminmax())
            if low < 0 or high >= z.shape[self.class_axis]:
                raise self._out_of_range(z, low, high)

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        """Σ over positions, mean over examples."""
        targets, last = self._targets(z, y), self._last(z)
        with self._in_range(z, y):
            parts = [-last[at].log_softmax(-1).gather(-1, targets[at][..., None]).sum() for at in pieces(last)]
        return (parts[0] if len(parts) == 1 else torch.stack(parts).sum()) / z.shape[0]

    def residual(self, z: Tensor, y: Tensor) -> Tensor:
        """p − onehot(y)."""
        targets = self._targets(z, y)
        with self._in_range(z, y):
            return self._filled(z, lambda last, at: _less_one(last.softmax(-1), targets[at]))

    def sample(self, z: Tensor, uniforms: Tensor) -> Tensor:
        """The class whose interval of the cumulative distribution holds the uniform."""
        last = self._last(z)
        found = torch.empty(last.shape[:-1], dtype=torch.int64, device=z.device)
        for at in pieces(last):
            found[at] = _drawn(last[at], uniforms[at])
        return found

    def sampled_residual(self, z: Tensor, uniforms: Tensor) -> Tensor:
        """p − onehot(y) at drawn targets, a few positions after another."""
        return self._filled(z, lambda last, at: _less_one(last.softmax(-1), _drawn(last, uniforms[at])))

    def draws(self, z: Tensor) -> tuple[int, ...]:
        """One uniform per position."""
        return tuple(self._last(z).shape[:-1])

    def hessian_root(self, z: Tensor) -> Iterator[Tensor]:
        """S = diag(√p) − p√pᵀ, one column per class and position: S Sᵀ = diag(p) − ppᵀ."""
        p = self._last(z).softmax(-1)
        positions = p[0, ..., 0].numel()
        flat = p.reshape(p.shape[0], positions, p.shape[-1])
        for t in range(positions):
            for k in range(p.shape[-1]):
                root = flat[:, t, k].sqrt()
                column = torch.zeros_like(flat)
                column[:, t] = -flat[:, t] * root[:, None]
                column[:, t, k] += root
                yield column.reshape(p.shape).movedim(-1, self.class_axis)

    def hessian_product(self, z: Tensor, v: Tensor) -> Tensor:
        """p ⊙ v − p (pᵀv)."""
        other = self._last(v)

        def product(last: Tensor, at: Place) -> Tensor:
            p = last.softmax(-1)
            return p * (other[at] - (p * other[at]).sum(-1, keepdim=True))

        return self._filled(z, product)

    def _filled(self, z: Tensor, function: Callable[[Tensor, Place], Tensor]) -> Tensor:
        """`function` of a few positions after another, their classes last, in the shape of z."""
        if z.requires_grad and torch.is_grad_enabled():  # writing into a tensor is nothing to differentiate through
            last = self._last(z)
            return function(last, ()).movedim(-1, self.class_axis)
        last, found = self._last(z), torch.empty_like(z)
        out = self._last(found)
        for at in pieces(last):
            out[at] = function(last[at], at)
        return found

    def _last(self, z: Tensor) -> Tensor:
        return z.movedim(self.class_axis, -1)

    def _targets(self, z: Tensor, y: Tensor) -> Tensor:
        shape = self._last(z).shape[:-1]
        if y.shape != shape or y.is_floating_point():
            raise CurvlabError(
                f"targets of shape {tuple(y.shape)} and type {y.dtype} do not fit outputs of shape {tuple(z.shape)}",
                f"cross entropy needs integer classes of shape {tuple(shape)}",
                "give class numbers, or another loss",
            )
        return y.long()

    @contextmanager
    def _in_range(self, z: Tensor, y: Tensor) -> Iterator[None]:
        """An index out of range becomes a sentence. Looking at y beforehand would wait for the device at every step."""
        try:
            yield
        except (IndexError, RuntimeError) as error:
            if "out of bounds" not in str(error):
                raise
            raise self._out_of_range(z, int(y.min()), int(y.max())) from error

    def _out_of_range(self, z: Tensor, low: int, high: int) -> CurvlabError:
        classes = z.shape[self.class_axis]
        return CurvlabError(
            f"targets lie in {low}..{high}",
            f"the model has {classes} classes, 0..{classes - 1}",
            "give the data that the model is for, or a model with an output for every class",
        )


def _less_one(p: Tensor, targets: Tensor) -> Tensor:
    """p − onehot(targets); in place where nothing has to be differentiated."""
    subtract = p.scatter_add if p.requires_grad else p.scatter_add_
    return subtract(-1, targets[..., None], p.new_full((1,), -1.0).expand(*p.shape[:-1], 1))


def _drawn(last: Tensor, uniforms: Tensor) -> Tensor:
    """#{k: p_1 + … + p_k < u}, in the type of the uniforms."""
    cumulative = last.to(uniforms.dtype).softmax(-1).cumsum(-1)
    found: Tensor = torch.searchsorted(cumulative, uniforms[..., None].contiguous())[..., 0]
    return found.clamp_(max=cumulative.shape[-1] - 1)
