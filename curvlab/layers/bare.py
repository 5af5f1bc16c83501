"""A parameter that a network multiplies (f = the other operand) or adds (f = 1) by hand: s = p ⊙ f, broadcast."""

from __future__ import annotations

from torch import Tensor

from curvlab.layers.elementwise import Elementwise


class Bare(Elementwise):
    """s = p ⊙ f, broadcast, with one group per entry of p.

    Args:
        kind: its name in tables.
        weight: p.
    """

    def __init__(self, kind: str, weight: Tensor) -> None:
        super().__init__(kind, weight, None, axis=0)

    def _channels(self, x: Tensor) -> Tensor:
        parameter = self.parameters["weight"].shape
        shape = (1,) * (x.ndim - len(parameter)) + tuple(parameter)
        channel = [axis for axis in range(1, x.ndim) if shape[axis] > 1]
        position = [axis for axis in range(1, x.ndim) if shape[axis] == 1]
        return x.permute(0, *position, *channel).reshape(x.shape[0], -1, self.groups)


class PerExample(Bare):
    """p with a gradient of its own for every example, which are its rows: what is known of a parameter that is used in
    a way that is no known affine map, and all there is to know of one that is added.

    Args:
        weight: p.
        why: it is no known affine map; None for one that is added.
    """

    def __init__(self, weight: Tensor, why: str | None) -> None:
        super().__init__("Parameter (gradient)" if why is not None else "Parameter (bias)", weight)
        if why is not None:
            self.road = f"its per-example gradients alone: {why}"


def broadcast_over_examples(weight: Tensor, output: Tensor) -> bool:
    """Whether a parameter was broadcast over the examples axis of `output`, so that per-example gradients exist."""
    if output.ndim == 0 or output.ndim < weight.ndim:
        return False
    shape = (1,) * (output.ndim - weight.ndim) + tuple(weight.shape)
    return shape[0] == 1 and all(p in (1, o) for p, o in zip(shape, output.shape, strict=True))
