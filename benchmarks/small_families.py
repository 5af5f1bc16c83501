"""A small random network of a transformers family: its own configuration class with every size made small."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY, POSITIONS, EXAMPLES = 64, 16, 4
LARGEST = 5_000_000
"""Parameters of a network that is small."""

SIZES: Mapping[str, int] = {
    "vocab_size": VOCABULARY,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "embedding_size", "emb_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "num_query_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_kv_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "hidden_dim"), 48),
    **dict.fromkeys(("head_dim", "d_kv", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_channels"), 8),
    **dict.fromkeys(("dff", "ffn_hidden_size"), 48),
    **dict.fromkeys(("vocab_size_per_layer_input", "codebook_size"), VOCABULARY),
    **dict.fromkeys(("hidden_size_per_layer_input", "laurel_rank", "mamba_d_state", "state_size", "ssm_state_size"), 8),
    "rotary_dim": 4,
    "num_kv_shared_layers": 0,
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "index_head_dim"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "num_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 64),
    **dict.fromkeys(("sliding_window", "attention_window"), 16),
    **dict.fromkeys(("image_size", "input_size"), 32),
    **dict.fromkeys(("patch_size",), 8),
    **dict.fromkeys(("num_labels",), 5),
}
"""Setting of a configuration -> its small value, where the family has a number there."""

OWN: Mapping[str, Mapping[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "swin": {"depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "patch_size": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
}
"""Type of model -> settings that two layers need."""

TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "sep_token_id", "cls_token_id")


HEADS = ("head_dim", "d_kv", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_channels", "index_head_dim")
GROUPED = ("num_key_value_heads", "num_kv_heads", "n_kv_heads")
CORE = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
VARIANTS: tuple[Mapping[str, int], ...] = (
    SIZES,
    {**SIZES, **dict.fromkeys(GROUPED, 4)},
    {name: size for name, size in SIZES.items() if name not in (*HEADS, *GROUPED)},
    {**{name: SIZES[name] for name in CORE}, "hidden_size": 64, "max_position_embeddings": 64},
    {"vocab_size": VOCABULARY, "num_hidden_layers": 4},
)
"""What is made small, in the order in which it is tried: sizes of one family have to fit each other."""


def small_models(config_class: type[Any], model_class: type[nn.Module]) -> Iterator[nn.Module | Exception]:
    """Random networks of the family in eval mode, one per variant of what is small; or what building it raised."""
    for sizes in VARIANTS:
        torch.manual_seed(0)
        try:
            config = small_config(config_class, sizes)
            with torch.device("meta"):
                count = sum(p.numel() for p in model_class(config).parameters())
            if count > LARGEST:
                raise ValueError(f"its network has {count:,} parameters with all known sizes made small")
            yield model_class(config).eval()
        except Exception as error:
            yield error


def small_config(config_class: type[Any], sizes: Mapping[str, int]) -> Any:
    """The family's configuration with these sizes, in the configurations inside of it too."""
    defaults = config_class()
    smaller = {name: size for name, size in sizes.items() if _is_number(_value(defaults, name))}
    if "head_dim" in sizes and _value(defaults, "head_dim", 0) is None:
        smaller["head_dim"] = sizes["head_dim"]  # some families compute with it before they derive it
    if len(sizes) > len(CORE) + 1:  # all known sizes, and not only those that matter most
        smaller |= _others(defaults, smaller)
    smaller |= {name: 1 + place for place, name in enumerate(TOKENS) if _is_number(_value(defaults, name))}
    if _value(defaults, "use_cache"):
        smaller["use_cache"] = False
    for name, inner in getattr(config_class, "sub_configs", {}).items():
        if _value(defaults, name) is not None and inspect.isclass(inner) and inner.__name__ != "AutoConfig":
            smaller[name] = small_config(inner, sizes)
    return config_class(**{**smaller, **OWN.get(config_class.model_type, {})})


def _others(config: Any, known: Mapping[str, int]) -> dict[str, int]:
    """Small values for large numbers under names that SIZES has not, by the last words of the names."""
    found: dict[str, int] = {}
    for name, value in config.to_dict().items():
        if name in known or not _is_number(value) or value < 48:
            continue
        if "vocab" in name:
            found[name] = VOCABULARY
        elif name.endswith("heads"):
            found[name] = 4
        elif name.endswith(("_dim", "_size", "_rank", "_width", "_channels", "_extent")):
            found[name] = 16
    return found


def _value(config: Any, name: str, otherwise: Any = None) -> Any:
    try:
        return getattr(config, name, otherwise)
    except Exception:  # transformers refuses to say what differs from layer to layer
        return otherwise


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def small_inputs(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inputs that a network of the family may take, the most likely first."""
    tokens = torch.randint(12, VOCABULARY, (EXAMPLES, POSITIONS), generator=torch.Generator().manual_seed(1))
    taken = inspect.signature(model.forward).parameters
    image = torch.randn(EXAMPLES, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    spectrum = torch.randn(EXAMPLES, 80, 3000, generator=torch.Generator().manual_seed(3))
    sound = torch.randn(EXAMPLES, 4000, generator=torch.Generator().manual_seed(3))
    if "input_ids" in taken and "pixel_values" in taken:
        yield {"input_ids": tokens, "pixel_values": image}
    if "input_ids" in taken and "encoder_hidden_states" in taken:
        yield {
            "input_ids": tokens,
            "encoder_hidden_states": torch.randn(EXAMPLES, POSITIONS, 32, generator=torch.Generator().manual_seed(4)),
        }
    if "input_ids" in taken:
        yield {"input_ids": tokens}
        if "decoder_input_ids" in taken:
            yield {"input_ids": tokens, "decoder_input_ids": tokens}
    if "input_features" in taken:
        more = {"decoder_input_ids": tokens} if "decoder_input_ids" in taken else {}
        yield {"input_features": spectrum, **more}
        yield {"input_features": spectrum[:, :, :20], **more}
        yield {"input_features": spectrum[:, :, :40].mT, **more}
    if "pixel_values" in taken:
        yield {"pixel_values": image}
    if "input_values" in taken:
        yield {"input_values": sound}
