"""Layers out of graphs: the operator that a layer became when it was exported, turned into the layer again.

A graph of `aten` operators has the weights of a layer and the settings of its call, which together are the module:
`aten.conv2d(x, weight, bias, stride, …)` is `nn.Conv2d` with that weight. Only a module can be hooked, and so analysed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

Arguments = Mapping[str, Any]
"""Arguments of an operator by the names in its schema; tensors that are the module's own, None for those that flow."""

INPUT = {"embedding": "indices", "prelu": "self"}
"""Operator -> the argument that flows through it; of all others it is "input"."""


def rebuilt(operator: str, arguments: Arguments, axes: int | None) -> nn.Module | None:
    """The layer that calls `operator` with these arguments, its parameters the given ones; None where there is none.

    Args:
        operator: its name without namespace and overload ("conv2d").
        arguments: by name; lists of numbers for strides and the like.
        axes: dimensions of the operator's output, where they are known.
    """
    maker = _MAKERS.get(operator)
    weight = arguments.get("weight")
    if maker is None or not isinstance(weight, nn.Parameter):
        return None
    bias = arguments.get("bias")
    if bias is not None and not isinstance(bias, nn.Parameter):
        return None
    module = maker(arguments, weight, axes)
    if module is not None:
        module.weight = weight
        if "bias" in arguments:
            module.register_parameter("bias", bias)
    return None if module is None else module.eval()


def _linear(a: Arguments, weight: Tensor, axes: int | None) -> nn.Module | None:
    if weight.ndim != 2:
        return None
    return nn.Linear(weight.shape[1], weight.shape[0], bias=a.get("bias") is not None, device="meta")


def _convolution(a: Arguments, weight: Tensor, axes: int | None) -> nn.Module | None:
    kernel, transposed = tuple(weight.shape[2:]), bool(a.get("transposed", False))
    if not 1 <= len(kernel) <= 3:
        return None
    groups, bias = a.get("groups", 1), a.get("bias") is not None
    settings = {"stride": _sizes(a["stride"], kernel), "dilation": _sizes(a["dilation"], kernel), "groups": groups}
    if transposed:
        kinds: tuple[Any, ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
        channels = (weight.shape[0], weight.shape[1] * groups)
        settings["output_padding"] = _sizes(a["output_padding"], kernel)
    else:
        kinds, channels = (nn.Conv1d, nn.Conv2d, nn.Conv3d), (weight.shape[1] * groups, weight.shape[0])
    padding = a["padding"] if isinstance(a["padding"], str) else _sizes(a["padding"], kernel)
    made: nn.Module = kinds[len(kernel) - 1](*channels, kernel, padding=padding, bias=bias, device="meta", **settings)
    return made


def _transposed(a: Arguments, weight: Tensor, axes: int | None) -> nn.Module | None:
    return _convolution({**a, "transposed": True}, weight, axes)


def _batch_norm(a: Arguments, weight: Tensor, axes: int | None) -> nn.Module | None:
    mean, variance = a.get("running_mean"), a.get("running_var")
    kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    # One that computes its own statistics mixes the examples of a batch: no affine map of each.
    if axes not in kinds or a.get("training", False) or mean is None or variance is None:
        return None
    made = kinds[axes](weight.shape[0], eps=a["eps"], momentum=a["momentum"], device="meta")
    made.running_mean, made.running_var, made.num_batches_tracked = mean, variance, None
    return made


def _layer_norm(a: Arguments, weight: Tensor, axes: int | None) -> nn.Module | None:
    return nn.LayerNorm(tuple(a["normalized_shape"]), eps=a["eps"], bias=a.get("bias") is not None, device="meta")


def _group_norm(a: Arguments, weight: Tensor, axes: int | None) -> nn.Module | None:
    return nn.GroupNorm(a["num_groups"], weight.shape[0], eps=a["eps"], device="meta")


def _embedding(a: Arguments, weight: Tensor, axes: int | None) -> nn.Module | None:
    return nn.Embedding(weight.shape[0], weight.shape[1], device="meta") if weight.ndim == 2 else None


def _prelu(a: Arguments, weight: Tensor, axes: int | None) -> nn.Module | None:
    return nn.PReLU(weight.numel(), device="meta") if weight.ndim == 1 else None


def _sizes(value: Any, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """One number stands for all axes."""
    sizes = tuple(value) if isinstance(value, list | tuple) else (value,)
    return sizes * len(kernel) if len(sizes) == 1 else sizes


_MAKERS: Mapping[str, Callable[[Arguments, Tensor, int | None], nn.Module | None]] = {
    "linear": _linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "_convolution", "_convolution_mode"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training"), _batch_norm),
    **dict.fromkeys(("layer_norm", "native_layer_norm"), _layer_norm),
    "group_norm": _group_norm,
    "embedding": _embedding,
    "prelu": _prelu,
}
OPERATORS = frozenset(_MAKERS)
