"""Forty families of transformers, small and random: at least 99 % of the parameters are seen on data, and what is seen
of them is every example's gradient as autograd computes it."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers
from example_gradients import exact_gradients, recorded_gradients
from torch import Tensor, nn

from benchmarks.families import TASKS, families, running
from curvlab.capture.model_inputs import call_model
from curvlab.capture.survey import first_examples, survey

FAMILIES = (
    *("albert", "bart", "bert", "bert-generation", "big_bird"),
    *("bitnet", "bloom", "codegen", "cohere2", "convbert"),
    *("deberta-v2", "deepseek_v3", "distilbert", "electra", "falcon"),
    *("falcon_mamba", "fnet", "gemma", "gemma3_text", "gpt2"),
    *("gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "granitemoe"),
    *("llama", "mamba", "mixtral", "mpt", "opt"),
    *("phi3", "qwen3", "recurrent_gemma", "roformer", "rwkv"),
    *("swin", "t5", "vit", "whisper", "xlstm"),
)
ALONE = {"falcon_mamba": 0.06, "mamba": 0.06, "recurrent_gemma": 0.01, "rwkv": 0.01, "swin": 0.01}
"""Share of the parameters that have the gradients of examples alone at most: exponentials, a mask within attention."""
TOLERANCE = 2e-4
"""Many families compute their norms and softmax in float32, whatever the type of the network."""


def in_double(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    """Both in float64; as they are where torch has no kernel for it (products grouped by expert)."""
    wide = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    try:
        with torch.no_grad():
            call_model(model.double(), wide)
    except RuntimeError:
        return model.float(), inputs
    return model, wide


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_parameter_is_seen_with_the_gradients_of_every_example(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the families' own
        name = families(list(TASKS))[kind]
        model, inputs = running(transformers.CONFIG_MAPPING[kind], getattr(transformers, name))
        model, inputs = in_double(model, inputs)
        found = survey(model, first_examples(inputs, 2))
        frozen = {parameter for parameter, p in model.named_parameters() if not p.requires_grad}
        gradients, oracle = recorded_gradients(model, inputs, found), exact_gradients(model, inputs)
    named = dict(model.named_parameters())
    covered = {parameter for block in found.blocks.values() for parameter in block.parameters.values()}
    missed = sum(named[parameter].numel() for parameter in named.keys() - covered - frozen)
    assert missed <= 0.01 * sum(p.numel() for p in named.values()), found.refused
    affine = {p for block in found.blocks.values() if block.layer.road is None for p in block.parameters.values()}
    alone = sum(named[parameter].numel() for parameter in covered - affine)
    assert alone <= ALONE.get(kind, 0.0) * sum(p.numel() for p in named.values())
    for parameter in covered - frozen:  # some families compute with fixed ones outside of autograd
        expected = oracle[parameter]
        off = (gradients.get(parameter, torch.zeros_like(expected)) - expected).norm()
        assert off <= TOLERANCE * expected.norm() + 1e-12, parameter
