"""Forty families of transformers, small and random: at least 99 % of the parameters are seen on data, and what is seen
of them is every example's gradient as autograd computes it."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers
from torch import Tensor, nn

from benchmarks.families import TASKS, families, running
from curvlab.capture.batch_record import Samples
from curvlab.capture.forward_backward import ForwardBackward
from curvlab.capture.model_inputs import call_model
from curvlab.capture.output import output_tensor
from curvlab.capture.sample import per_example_gradients
from curvlab.capture.survey import Survey, first_examples, survey
from curvlab.likelihoods import Gaussian
from curvlab.likelihoods.fisher import Fisher

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


class Sums:
    """An observer: every example's gradient of every parameter, summed over its uses."""

    def __init__(self, found: Survey) -> None:
        self.found = found
        self.total: dict[str, Tensor] = {}

    def inputs(self, samples: Samples) -> None:
        """Nothing."""

    def output_gradients(self, samples: Samples, passed: int) -> None:
        """Add what a block has."""
        for name, sample in samples.items():
            block = self.found.blocks[name]
            gradients = per_example_gradients(sample.layer, sample.features, sample.output_gradients)
            for role, part in sample.layer.split(gradients).items():
                parameter = block.parameters[role]
                self.total[parameter] = self.total.get(parameter, 0) + part


def seen(model: nn.Module, inputs: dict[str, Tensor], found: Survey) -> dict[str, Tensor]:
    """Every example's gradient of ½ ‖z_n‖²."""
    observer = Sums(found)
    with torch.no_grad():
        z = output_tensor(call_model(model, inputs))
    recorder = ForwardBackward(model, "the test", found=found)
    recorder.batch(inputs, torch.zeros_like(z), Fisher(Gaussian(), "empirical", 1, torch.Generator()), observer)
    recorder.close()
    assert not set(recorder.refused) - set(found.refused)
    return observer.total


def exact(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, one backward pass for every example."""
    named = dict(model.requires_grad_().named_parameters())
    z = output_tensor(call_model(model, inputs))
    found = []
    for n in range(len(z)):
        cotangent = torch.zeros_like(z)
        cotangent[n] = z[n].detach()
        found.append(torch.autograd.grad(z, list(named.values()), cotangent, retain_graph=True, allow_unused=True))
    rows = [
        [torch.zeros_like(p) if g is None else g for g, p in zip(one, named.values(), strict=True)] for one in found
    ]
    return {name: torch.stack(parts) for name, parts in zip(named, zip(*rows, strict=True), strict=True)}


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
        gradients, oracle = seen(model, inputs, found), exact(model, inputs)
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
