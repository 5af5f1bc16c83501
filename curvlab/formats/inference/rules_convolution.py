"""Convolutions: a weight of three to five axes. Stride, padding and dilation leave no trace in a file of weights."""

from __future__ import annotations

from curvlab.formats.checkpoint import InferredLayer
from curvlab.formats.inference.layer_group import AGREED, SHAPE, SPLIT, Group, Rule, same

_TRANSPOSED = frozenset({"deconv", "transpose", "transposed", "convtranspose", "upconv", "convt", "deconvolution"})
_CONVOLUTION = frozenset({"conv", "convolution", "stem", "downsample", "proj", "projection"})


def convolution(group: Group) -> InferredLayer | None:
    """(out, in/groups, k…) with a bias of length out; one as long as the second axis means (in, out, k…)."""
    shape, bias = group.shape("weight"), group.shape("bias")
    if shape is None or not 3 <= len(shape) <= 5 or (bias is not None and len(bias) != 1):
        return None
    kind, kernel = f"Conv{len(shape) - 2}d", "×".join(map(str, shape[2:]))
    transposed = kind.replace("Conv", "ConvTranspose")
    roles, first, second = same("weight", "bias"), shape[0], shape[1]
    if bias is not None and bias[0] not in (first, second):
        return None
    if bias is not None and bias[0] == second != first:
        why = f"bias length {second} equals the second axis of weight {shape}: outputs come second, kernel {kernel}"
        return group.layer(transposed, roles, shape, AGREED, why)
    if group.says(_TRANSPOSED) and (bias is None or first == second):
        why = f"weight {shape} could be either way round; the name says transposed, kernel {kernel}"
        return group.layer(transposed, roles, shape, SPLIT, why)
    why = (
        f"bias length {first} equals the first axis of weight {shape}"
        if bias is not None
        else f"weight {shape} without bias"
    )
    depth = ", one input channel for each filter: depthwise, or fed by a single channel" if second == 1 < first else ""
    sure = AGREED if bias is not None or group.says(_CONVOLUTION) else SHAPE
    return group.layer(kind, roles, shape, sure, f"{why}, kernel {kernel}{depth}")


RULES: tuple[Rule, ...] = (convolution,)
