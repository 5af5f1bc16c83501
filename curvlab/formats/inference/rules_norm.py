"""Normalisation layers: running statistics, or a weight of one number for each feature."""

from __future__ import annotations

from curvlab.formats.checkpoint import InferredLayer
from curvlab.formats.inference.layer_group import AGREED, SHAPE, SPLIT, Group, Rule

_NORM = frozenset({"norm", "ln", "layernorm", "rms", "rmsnorm", "gn", "groupnorm", "normalization"})
_AFFINE = (("weight", "gamma"), ("bias", "beta"))
_SLOPE = frozenset({"prelu", "relu", "act", "activation"})


def batch_norm(group: Group) -> InferredLayer | None:
    """Running mean and variance, with or without weight and bias."""
    for mean, variance in (("running_mean", "running_var"), ("moving_mean", "moving_variance")):
        shape = group.shape(mean)
        if shape is None or len(shape) != 1 or group.shape(variance) != shape:
            continue
        affine = {role: name for role, other in _AFFINE for name in (other, role) if group.shape(name) == shape}
        statistics = {"running_mean": mean, "running_var": variance, "num_batches_tracked": "num_batches_tracked"}
        roles = affine | statistics
        why = f"{mean} and {variance} of {shape[0]} channels" + (
            "" if "weight" in roles else ", without weight and bias"
        )
        return group.layer("BatchNorm", roles, shape, AGREED, why)
    return None


def affine_norm(group: Group) -> InferredLayer | None:
    """Weight and bias of one shape: a norm, for a Linear's bias is shorter than its weight."""
    for weight, bias in (("weight", "bias"), ("gamma", "beta"), ("scale", "bias")):
        shape = group.shape(weight)
        if not shape or group.shape(bias) != shape:
            continue
        if shape == (1,) and not group.says(_NORM):
            return None
        roles = {"weight": weight, "bias": bias}
        if len(shape) > 1:
            return group.layer("LayerNorm", roles, shape, AGREED, f"weight and bias have the same shape {shape}")
        kind, why = "LayerNorm/GroupNorm", f"1-D weight with a bias of the same length {shape[0]}"
        return group.layer(kind, roles, shape, AGREED if group.says(_NORM) else SHAPE, why)
    return None


def lone_vector(group: Group) -> InferredLayer | None:
    """A 1-D weight without bias: the slopes of a PReLU or the gains of a norm, as the name says."""
    stored = next((role for role in ("weight", "gamma", "scale") if len(group.shape(role) or ()) == 1), None)
    if stored is None or group.shape("bias") is not None:
        return None
    (size,) = shape = group.specs[stored].shape
    roles = {"weight": stored}
    if group.says(_SLOPE):
        return group.layer("PReLU", roles, shape, AGREED, f"1-D weight of length {size} alone, named as an activation")
    if group.says(_NORM):
        why = f"1-D weight of length {size} alone, named as a norm (a LayerNorm with bias=False looks the same)"
        return group.layer("RMSNorm", roles, shape, AGREED, why)
    if size > 1 and stored == "weight":
        why = f"1-D weight of length {size} alone: the gains of an RMSNorm or the slopes of a PReLU"
        return group.layer("RMSNorm/PReLU", roles, shape, SPLIT, why)
    return None


RULES: tuple[Rule, ...] = (affine_norm, lone_vector)
