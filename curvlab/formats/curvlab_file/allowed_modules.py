"""The torch modules that a description may name, and the constructor arguments that make each of them again.

Every argument is an attribute of the module with the same name. A class belongs here when its arguments are plain
values, its constructor allocates no more than its parameters, and it needs nothing but its inputs to run.
"""

from __future__ import annotations

_LINEAR = ("in_features", "out_features", "bias")
_CONV = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "bias",
    "padding_mode",
)
_CONV_TRANSPOSE = (*_CONV, "output_padding")
_BATCH_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")
_MAX_POOL = ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode")
_AVG_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_RECURRENT = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
_DROPOUT = ("p", "inplace")
_EMBEDDING = ("num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
_IN_PLACE = ("inplace",)


def _in_dimensions(name: str, arguments: tuple[str, ...], dimensions: str = "123") -> dict[str, tuple[str, ...]]:
    return {f"{name}{d}d": arguments for d in dimensions}


ARGUMENTS: dict[str, tuple[str, ...]] = {
    "Identity": (),
    "Linear": _LINEAR,
    "Embedding": _EMBEDDING,
    **_in_dimensions("Conv", _CONV),
    **_in_dimensions("ConvTranspose", _CONV_TRANSPOSE),
    **_in_dimensions("BatchNorm", _BATCH_NORM),
    **_in_dimensions("InstanceNorm", _BATCH_NORM),
    "GroupNorm": ("num_groups", "num_channels", "eps", "affine"),
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine", "bias"),
    "RMSNorm": ("normalized_shape", "eps", "elementwise_affine"),
    "LocalResponseNorm": ("size", "alpha", "beta", "k"),
    "LSTM": (*_RECURRENT, "proj_size"),
    "GRU": _RECURRENT,
    "RNN": (*_RECURRENT, "nonlinearity"),
    # activations
    "ReLU": _IN_PLACE,
    "ReLU6": _IN_PLACE,
    "SELU": _IN_PLACE,
    "SiLU": _IN_PLACE,
    "Mish": _IN_PLACE,
    "Hardswish": _IN_PLACE,
    "Hardsigmoid": _IN_PLACE,
    "LeakyReLU": ("negative_slope", "inplace"),
    "ELU": ("alpha", "inplace"),
    "CELU": ("alpha", "inplace"),
    "GELU": ("approximate",),
    "PReLU": ("num_parameters",),
    "Hardtanh": ("min_val", "max_val", "inplace"),
    "Threshold": ("threshold", "value", "inplace"),
    "Softplus": ("beta", "threshold"),
    "Softshrink": ("lambd",),
    "Hardshrink": ("lambd",),
    "GLU": ("dim",),
    "Softmax": ("dim",),
    "Softmin": ("dim",),
    "LogSoftmax": ("dim",),
    **dict.fromkeys(("Sigmoid", "LogSigmoid", "Tanh", "Tanhshrink", "Softsign"), ()),
    # pooling
    **_in_dimensions("MaxPool", _MAX_POOL),
    "AvgPool1d": _AVG_POOL,
    **_in_dimensions("AvgPool", (*_AVG_POOL, "divisor_override"), "23"),
    **_in_dimensions("AdaptiveAvgPool", ("output_size",)),
    **_in_dimensions("AdaptiveMaxPool", ("output_size", "return_indices")),
    # shape
    "Flatten": ("start_dim", "end_dim"),
    "Unflatten": ("dim", "unflattened_size"),
    "Upsample": ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor"),
    "PixelShuffle": ("upscale_factor",),
    "PixelUnshuffle": ("downscale_factor",),
    "ChannelShuffle": ("groups",),
    **_in_dimensions("ZeroPad", ("padding",)),
    **_in_dimensions("ReflectionPad", ("padding",)),
    **_in_dimensions("ReplicationPad", ("padding",)),
    **_in_dimensions("ConstantPad", ("padding", "value")),
    # regularisation
    "Dropout": _DROPOUT,
    **_in_dimensions("Dropout", _DROPOUT),
    "AlphaDropout": _DROPOUT,
    "FeatureAlphaDropout": _DROPOUT,
}
