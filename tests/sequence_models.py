"""Small random networks over sequences and pictures, as transformers makes them, and their folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import save_file

WORDS, POSITIONS = 60, 40
_ATTENTION = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
}
_LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
_BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
_WHISPER = {"num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 20}
_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
_WAV2VEC = {
    "conv_dim": (8, 8),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}

MODELS: Mapping[str, tuple[type[Any], Mapping[str, Any]]] = {
    "GPT-2": (hf.GPT2LMHeadModel, {"n_positions": POSITIONS, "n_embd": 16, "n_layer": 2, "n_head": 2}),
    "Llama": (hf.LlamaForCausalLM, _LLAMA),
    "Mixtral": (hf.MixtralForCausalLM, {**_LLAMA, "num_local_experts": 3}),
    "Mamba": (hf.MambaForCausalLM, {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 2}),
    "XLNet": (hf.XLNetLMHeadModel, {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24}),
    "BERT": (hf.BertForMaskedLM, {**_BERT, "max_position_embeddings": POSITIONS}),
    "BERT without a head": (hf.BertModel, {**_BERT, "max_position_embeddings": POSITIONS}),
    "T5 without a head": (hf.T5Model, _T5),
    "ViT without a head": (hf.ViTModel, {**_BERT, "image_size": 16, "patch_size": 4}),
    "T5": (hf.T5ForConditionalGeneration, _T5),
    "BART": (hf.BartForConditionalGeneration, {**_ATTENTION, "max_position_embeddings": POSITIONS}),
    "BART's decoder": (hf.BartForCausalLM, {**_ATTENTION, "max_position_embeddings": POSITIONS}),
    "mBART": (hf.MBartForConditionalGeneration, {**_ATTENTION, "max_position_embeddings": POSITIONS}),
    "Whisper": (hf.WhisperForConditionalGeneration, {**_ATTENTION, **_WHISPER, **_TOKENS}),
    "wav2vec": (hf.Wav2Vec2ForCTC, {**_BERT, **_WAV2VEC}),
    "ViT": (hf.ViTForImageClassification, {**_BERT, "image_size": 16, "patch_size": 4, "num_labels": 5}),
}
"""Name -> class, and what its configuration says beside the number of words."""


def network(name: str, words: int = WORDS, **settings: Any) -> Any:
    """A random network, always the same."""
    kind, chosen = MODELS[name]
    torch.manual_seed(0)
    made: Callable[..., Any] = kind.config_class
    return kind(made(vocab_size=words, **{**chosen, **settings})).eval()


def folder(model: Any, path: Path) -> Path:
    """The two files that matter, without the progress bars of `save_pretrained`."""
    path.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict() | {"architectures": [type(model).__name__]}
    (path / "config.json").write_text(json.dumps(config, default=str))
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    save_file({k: v.contiguous() for k, v in model.state_dict().items() if k not in tied}, path / "model.safetensors")
    return path


def tokenizer(place: Path, kind: str = "bytes", words: int = WORDS) -> Path:
    """A small tokenizer.json in a folder: of bytes as GPT-2 has it, or of word pieces between [CLS] and [SEP]."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    special = ["<|end|>", "[CLS]", "[SEP]", "[UNK]"]
    if kind == "bytes":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        made.train_from_iterator(
            [TEXT], trainers.BpeTrainer(vocab_size=words, special_tokens=special, show_progress=False)
        )
    else:
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.Lowercase()
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordPieceTrainer(vocab_size=words, special_tokens=special, show_progress=False)
        made.train_from_iterator([TEXT], trainer)
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    made.save(str(place / "tokenizer.json"))
    return place


TEXT = """Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse,
and nothing particular to interest me on shore, I thought I would sail about a little and see the watery part
of the world. It is a way I have of driving off the spleen and regulating the circulation.
"""
"""The beginning of Moby Dick (1851)."""
