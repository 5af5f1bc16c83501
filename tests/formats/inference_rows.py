"""Which tensors, by name and shape, are which layer: one row per case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """Tensors (float32 unless `dtypes` says otherwise) and the (name, kind) pairs that must come out, in order."""

    what: str
    tensors: Mapping[str, Shape]
    layers: tuple[tuple[str, str], ...]
    evidence: str = ""  # must stand in the evidence of one of the layers
    transposed: tuple[str, ...] = ()
    dtypes: Mapping[str, str] = field(default_factory=dict)


def norm(prefix: str, size: int) -> dict[str, Shape]:
    return {f"{prefix}.{role}": (size,) for role in ("weight", "bias", "running_mean", "running_var")}


def lstm(suffixes: tuple[str, ...], rows: int, inputs: int, hidden: int) -> dict[str, Shape]:
    return {
        f"rnn.{role}{suffix}": shape
        for suffix in suffixes
        for role, shape in {
            "weight_ih": (rows, inputs),
            "weight_hh": (rows, hidden),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
        }.items()
    }


ROWS = [
    # 1: running statistics
    Row("batch norm", norm("bn", 8), (("bn", "BatchNorm"),), "8 channels"),
    Row(
        "batch norm with its counter",
        {**norm("bn", 8), "bn.num_batches_tracked": ()},
        (("bn", "BatchNorm"),),
        dtypes={"bn.num_batches_tracked": "int64"},
    ),
    Row(
        "batch norm without weight and bias",
        {"bn.running_mean": (8,), "bn.running_var": (8,)},
        (("bn", "BatchNorm"),),
        "without weight and bias",
    ),
    Row(
        "batch norm by Keras's names",
        {"bn.gamma": (8,), "bn.beta": (8,), "bn.moving_mean": (8,), "bn.moving_variance": (8,)},
        (("bn", "BatchNorm"),),
    ),
    # 2: recurrent layers
    Row("LSTM", lstm(("_l0",), 20, 3, 5), (("rnn", "LSTM"),), "4 gates of hidden size 5"),
    Row("GRU", lstm(("_l0",), 15, 3, 5), (("rnn", "GRU"),), "3 gates"),
    Row("RNN", lstm(("_l0",), 5, 3, 5), (("rnn", "RNN"),), "1 gate of hidden size 5"),
    Row("LSTM of two layers", lstm(("_l0", "_l1"), 20, 5, 5), (("rnn", "LSTM"),), "2 layers"),
    Row("LSTM of both directions", lstm(("_l0", "_l0_reverse"), 20, 3, 5), (("rnn", "LSTM"),), "both directions"),
    Row(
        "LSTM with a projection",
        {"rnn.weight_ih_l0": (20, 3), "rnn.weight_hh_l0": (20, 2), "rnn.weight_hr_l0": (2, 5)},
        (("rnn", "LSTM"),),
        "projected to 2",
    ),
    Row("LSTM cell", lstm(("",), 20, 3, 5), (("rnn", "LSTMCell"),)),
    Row("GRU cell", lstm(("",), 15, 3, 5), (("rnn", "GRUCell"),)),
    Row(
        "recurrent names with rows that no layer has",
        {"rnn.weight_ih_l0": (10, 3), "rnn.weight_hh_l0": (10, 5)},
        (("rnn.weight_ih_l0", "parameter"), ("rnn.weight_hh_l0", "parameter")),
    ),
    # 3: attention
    Row(
        "MultiheadAttention",
        {"a.in_proj_weight": (24, 8), "a.in_proj_bias": (24,), "a.out_proj.weight": (8, 8), "a.out_proj.bias": (8,)},
        (("a", "MultiheadAttention"), ("a.out_proj", "Linear")),
        "24 = 3 · 8",
    ),
    Row(
        "MultiheadAttention with sizes of its own",
        {"a.q_proj_weight": (8, 8), "a.k_proj_weight": (8, 5), "a.v_proj_weight": (8, 6), "a.in_proj_bias": (24,)},
        (("a", "MultiheadAttention"),),
    ),
    Row(
        "query, key, value",
        {f"a.{part}.weight": (8, 8) for part in ("q_proj", "k_proj", "v_proj")},
        (("a.q_proj", "Linear"), ("a.k_proj", "Linear"), ("a.v_proj", "Linear")),
        "query of the attention a",
    ),
    Row(
        "grouped-query attention",
        {"a.q_proj.weight": (8, 8), "a.k_proj.weight": (2, 8), "a.v_proj.weight": (2, 8)},
        (("a.q_proj", "Linear"), ("a.k_proj", "Linear"), ("a.v_proj", "Linear")),
        "grouped-query: 8 query and 2 key outputs",
    ),
    Row("fused qkv", {"a.qkv.weight": (24, 8), "a.qkv.bias": (24,)}, (("a.qkv", "Linear"),), "24 outputs = 3 · 8"),
    Row(
        "GPT-2's fused qkv, transposed",
        {"a.c_attn.weight": (8, 24), "a.c_attn.bias": (24,)},
        (("a.c_attn", "Linear"),),
        "24 outputs = 3 · 8",
        transposed=("a.c_attn",),
    ),
    # 4: weights in parts (their values are tested beside the folds)
    Row(
        "weight norm",
        {"c.weight_g": (6, 1, 1), "c.weight_v": (6, 4, 3), "c.bias": (6,)},
        (("c", "Conv1d"),),
        "weight norm put together from weight_g and weight_v",
    ),
    Row(
        "weight norm as a parametrization",
        {"l.parametrizations.weight.original0": (6, 1), "l.parametrizations.weight.original1": (6, 4), "l.bias": (6,)},
        (("l", "Linear"),),
        "weight norm",
    ),
    Row(
        "spectral norm",
        {"l.weight_orig": (6, 4), "l.weight_u": (6,), "l.weight_v": (4,), "l.bias": (6,)},
        (("l", "Linear"),),
        "spectral norm",
    ),
    Row(
        "spectral norm as a parametrization",
        {
            "l.bias": (6,),
            "l.parametrizations.weight.original": (6, 4),
            "l.parametrizations.weight.0._u": (6,),
            "l.parametrizations.weight.0._v": (4,),
        },
        (("l", "Linear"),),
        "spectral norm",
    ),
    Row(
        "pruning",
        {"l.weight_orig": (6, 4), "l.weight_mask": (6, 4), "l.bias_orig": (6,), "l.bias_mask": (6,)},
        (("l", "Linear"),),
        "pruned by its stored mask",
    ),
    Row(
        "LoRA beside its base, scale unknown",
        {
            "l.base_layer.weight": (6, 4),
            "l.base_layer.bias": (6,),
            "l.lora_A.default.weight": (2, 4),
            "l.lora_B.default.weight": (6, 2),
        },
        (("l.base_layer", "Linear"), ("l.lora_update.default", "Linear")),
        "LoRA update B·A of rank 2 without its scale",
    ),
    Row(
        "LoRA with its scale, merged",
        {"l.weight": (6, 4), "l.bias": (6,), "l.lora_down.weight": (2, 4), "l.lora_up.weight": (6, 2), "l.alpha": ()},
        (("l", "Linear"),),
        "base weight plus LoRA update of rank 2",
    ),
    Row(
        "integers with a scale for each row",
        {"l.weight": (6, 4), "l.weight_scale": (6, 1), "l.bias": (6,)},
        (("l", "Linear"),),
        "int8 values times weight_scale",
        dtypes={"l.weight": "int8"},
    ),
    Row(
        "bitsandbytes, eight bits",
        {"l.weight": (6, 4), "l.SCB": (6,), "l.weight_format": ()},
        (("l", "Linear"), ("l.weight_format", "buffer")),
        "int8 values times SCB",
        dtypes={"l.weight": "int8", "l.weight_format": "uint8"},
    ),
    Row(
        "8-bit floats with block scales",
        {"l.weight": (300, 200), "l.weight_scale_inv": (3, 2)},
        (("l", "Linear"),),
        "each block of 128 × 128",
        dtypes={"l.weight": "float8_e4m3fn"},
    ),
    Row(
        "8-bit floats without a scale are weights",
        {"l.weight": (6, 4), "l.bias": (6,)},
        (("l", "Linear"),),
        dtypes={"l.weight": "float8_e5m2"},
    ),
    Row(
        "packed integers of unknown order (AWQ)",
        {"l.qweight": (64, 8), "l.qzeros": (2, 8), "l.scales": (2, 64), "l.bias": (64,)},
        (("l", "packed"),),
        "packed in a way that names and shapes do not tell",
        dtypes={"l.qweight": "int32", "l.qzeros": "int32", "l.scales": "float16"},
    ),
    Row(
        "four-bit bitsandbytes",
        {"l.weight": (12, 1), "l.weight.absmax": (1,), "l.weight.quant_map": (16,)},
        (("l", "packed"), ("l.weight.absmax", "buffer"), ("l.weight.quant_map", "buffer")),
        dtypes={"l.weight": "uint8"},
    ),
    # 5: one number for each feature
    Row("layer norm", {"ln.weight": (8,), "ln.bias": (8,)}, (("ln", "LayerNorm/GroupNorm"),)),
    Row(
        "norm by its old names",
        {"LayerNorm.gamma": (8,), "LayerNorm.beta": (8,)},
        (("LayerNorm", "LayerNorm/GroupNorm"),),
    ),
    Row("layer norm over two axes", {"x.weight": (4, 8), "x.bias": (4, 8)}, (("x", "LayerNorm"),), "same shape (4, 8)"),
    Row("RMS norm", {"m.input_layernorm.weight": (8,)}, (("m.input_layernorm", "RMSNorm"),)),
    Row("PReLU", {"prelu1.weight": (8,)}, (("prelu1", "PReLU"),)),
    Row("PReLU of one slope", {"act.weight": (1,)}, (("act", "PReLU"),)),
    Row(
        "nameless vector",
        {"x.weight": (8,)},
        (("x", "RMSNorm/PReLU"),),
        "the gains of an RMSNorm or the slopes of a PReLU",
    ),
    Row(
        "weight and bias of one number are no norm",
        {"similarity.weight": (1,), "similarity.bias": (1,)},
        (("similarity.weight", "parameter"), ("similarity.bias", "parameter")),
    ),
    # 6: matrices
    Row("linear", {"fc.weight": (20, 64), "fc.bias": (20,)}, (("fc", "Linear"),), "bias length 20 equals the rows"),
    Row("square linear", {"fc.weight": (8, 8), "fc.bias": (8,)}, (("fc", "Linear"),), "as it does the columns"),
    Row(
        "transposed linear",
        {"h.c_fc.weight": (8, 32), "h.c_fc.bias": (32,)},
        (("h.c_fc", "Linear"),),
        "stored as (in, out)",
        transposed=("h.c_fc",),
    ),
    Row(
        "square matrix transposed like its namesake",
        {"a.c_proj.weight": (8, 8), "a.c_proj.bias": (8,), "m.c_proj.weight": (32, 8), "m.c_proj.bias": (8,)},
        (("a.c_proj", "Linear"), ("m.c_proj", "Linear")),
        "like the other layers named c_proj",
        transposed=("a.c_proj", "m.c_proj"),
    ),
    Row(
        "kernel of Keras or Flax",
        {"d.kernel": (8, 8), "d.bias": (8,)},
        (("d", "Linear"),),
        transposed=("d",),
    ),
    Row("linear without bias", {"lm_head.weight": (100, 8)}, (("lm_head", "Linear"),)),
    Row("embedding", {"wte.weight": (100, 8)}, (("wte", "Embedding"),)),
    Row("embedding by a longer name", {"m.embed_tokens.weight": (100, 8)}, (("m.embed_tokens", "Embedding"),)),
    Row("embedding in a list", {"embeddings.0.weight": (100, 8)}, (("embeddings.0", "Embedding"),)),
    Row("output of an embedding", {"embed_out.weight": (100, 8)}, (("embed_out", "Linear"),)),
    Row("embedding by its own role", {"e.embedding": (100, 8)}, (("e", "Embedding"),)),
    Row("underscores for dots", {"fc1_weight": (5, 3), "fc1_bias": (5,)}, (("fc1", "Linear"),)),
    Row(
        "a bias that fits neither way",
        {"x.weight": (5, 3), "x.bias": (4,)},
        (("x.weight", "parameter"), ("x.bias", "parameter")),
    ),
    Row("no rows", {"fc.weight": (0, 5), "fc.bias": (0,)}, (("fc", "Linear"),)),
    # 7: convolutions
    Row("1-D convolution", {"c.weight": (6, 4, 3), "c.bias": (6,)}, (("c", "Conv1d"),)),
    Row("2-D convolution", {"c.weight": (6, 4, 3, 3), "c.bias": (6,)}, (("c", "Conv2d"),), "kernel 3×3"),
    Row("3-D convolution", {"c.weight": (6, 4, 3, 3, 3)}, (("c", "Conv3d"),)),
    Row("depthwise", {"c.weight": (6, 1, 3, 3), "c.bias": (6,)}, (("c", "Conv2d"),), "depthwise"),
    Row(
        "transposed", {"up.weight": (4, 6, 3, 3), "up.bias": (6,)}, (("up", "ConvTranspose2d"),), "outputs come second"
    ),
    Row("transposed by name", {"deconv1.weight": (4, 4, 3)}, (("deconv1", "ConvTranspose1d"),), "the name says"),
    # 8: no layers
    Row(
        "position ids", {"e.position_ids": (1, 8)}, (("e.position_ids", "buffer"),), dtypes={"e.position_ids": "int64"}
    ),
    Row("rotary frequencies", {"r.inv_freq": (8,)}, (("r.inv_freq", "buffer"),)),
    Row("GPT-2's mask", {"attn.bias": (1, 1, 9, 9)}, (("attn.bias", "buffer"),), "square mask"),
    Row("boolean mask", {"m.x": (4, 4)}, (("m.x", "buffer"),), dtypes={"m.x": "bool"}),
    Row("window", {"s.window": (400,)}, (("s.window", "buffer"),)),
    Row("Fourier basis", {"stft.forward_basis": (258, 1, 256)}, (("stft.forward_basis", "buffer"),)),
    Row("Fourier basis as a convolution", {"stft_conv.weight": (258, 1, 256)}, (("stft_conv", "buffer"),)),
    Row("scalar", {"logit_scale": ()}, (("logit_scale", "buffer"),), "a single number"),
    Row("parameter of its own", {"cls_token": (1, 1, 8)}, (("cls_token", "parameter"),)),
    Row(
        "parameter beside a layer's own",
        {"x.weight": (5, 3), "x.bias": (5,), "x.gate": (5, 2)},
        (("x", "Linear"), ("x.gate", "parameter")),
    ),
    # 9: unusual but legal kernels
    Row("one by one", {"c.weight": (6, 4, 1, 1), "c.bias": (6,)}, (("c", "Conv2d"),), "kernel 1×1"),
    Row("long and thin", {"c.weight": (6, 4, 512, 1), "c.bias": (6,)}, (("c", "Conv2d"),), "kernel 512×1"),
]
