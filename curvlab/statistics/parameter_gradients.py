"""D_n of a parameter: every example's gradient of it, summed over all its uses (docs/curvature.md)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from curvlab.capture.sample import Sample, per_example_gradients
from curvlab.shapes import Float


def parameter_gradients(
    parts: Sequence[tuple[Sample, str]], shape: tuple[int, ...], examples: slice
) -> Float[Tensor, "n ..."]:
    """D_n of some of the examples, as tensors of a shape.

    Args:
        parts: (sample, role) of every use of the parameter; their gradients add up.
        shape: of the parameter, or of its modes.
        examples: whose.
    """
    total: Tensor | None = None
    for sample, role in parts:
        if role == "bias":
            part = sample.output_gradients[:, examples].sum(2).transpose(0, 1)
        else:
            d = per_example_gradients(sample.layer, sample.features[:, examples], sample.output_gradients[:, examples])
            part = sample.layer.split(d)[role]
        part = part.reshape(part.shape[0], *shape)
        total = part if total is None else total + part
    assert total is not None
    return total
