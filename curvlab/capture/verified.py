"""Verification of a survey: the uses that were seen explain the gradients that autograd computes, example by example.

A use that was not recorded, or rows that were assigned to another example, would make every statistic of a parameter
wrong. For a random tensor R of the parameter's shape, ⟨Σ_t g āᵀ, R⟩ over all uses must be autograd's
⟨∂ℓ_n/∂P, R⟩.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from curvlab.capture.layer_block import Survey
from curvlab.capture.model_inputs import Inputs
from curvlab.capture.output import output_tensor
from curvlab.capture.preserve import frozen, preserve
from curvlab.capture.recording import Recording
from curvlab.capture.sample import Sample
from curvlab.layers.embedding import EmbeddingLayer
from curvlab.layers.viewed import ViewedLayer

TOLERANCES = {torch.float64: 1e-6, torch.float32: 2e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
"""Of a difference, relative to ‖∂ℓ/∂P‖: far above rounding, far below what a use that was overlooked makes."""


def unexplained(model: nn.Module, found: Survey, inputs: Inputs) -> dict[str, float]:
    """Parameter -> relative difference, of those in a block that hooks alone do not see or with several
    uses; only where it is too large.

    Args:
        model: the network.
        found: its blocks.
        inputs: one or two examples.
    """
    several = {name for name, block in found.blocks.items() if block.tied or len(block.uses) > 1}
    blocks = [name for name, block in found.blocks.items() if block.watched or name in several]
    names = {parameter for name in blocks for parameter in found.blocks[name].parameters.values()}
    blocks += [n for n, b in found.blocks.items() if n not in blocks and not names.isdisjoint(b.parameters.values())]
    parameters = {name: p for name, p in model.named_parameters() if name in names and p.is_floating_point()}
    if not parameters:
        return {}
    dtype = torch.promote_types(next(iter(parameters.values())).dtype, torch.float32)
    recording = Recording(
        model,
        found,
        dtype,
        output_gradients=True,
        wanted=blocks,
        stream=False,
        hold_inputs=True,
        refuse=_ignore,
        masked=False,  # autograd counts padding
    )
    try:
        with preserve(model), frozen(model, parameters.values()), torch.enable_grad():
            return _compared(recording, inputs, parameters, coupled=model.training)
    finally:
        recording.end()
        recording.tape.close()


def _compared(
    recording: Recording, inputs: Inputs, parameters: Mapping[str, Tensor], *, coupled: bool
) -> dict[str, float]:
    recording.begin(None)
    tape = recording.tape
    output = output_tensor(tape.run(inputs))
    if not output.requires_grad:
        return {}
    recording.inputs()
    generator = torch.Generator().manual_seed(0)
    cotangent = torch.randn(output.shape, generator=generator).to(output)
    directions = {n: torch.randn(p.shape, generator=generator).to(p) for n, p in parameters.items()}
    recording.open_pass(True)
    whole = tape.pull(output, cotangent, parameters.values(), retain_graph=True)
    samples = recording.close_pass(keep=True)
    seen: dict[str, Tensor] = {}
    sizes: dict[str, float] = {}
    for block, sample in samples.items():
        roles = recording.found.blocks[block].parameters
        for role, name in roles.items():
            if name in parameters:
                zeros = {other: torch.zeros_like(p) for other, p in sample.layer.parameters.items()}
                value, size = _projected(sample, zeros | {role: directions[name]})
                seen[name] = seen[name] + value if name in seen else value
                sizes[name] = sizes.get(name, 0.0) + size
    alone: list[Tensor | None] = [None] * len(parameters)
    if tape.examples > 1 and not coupled and output.shape[0] == tape.examples:
        first = torch.zeros_like(cotangent)
        first[0] = cotangent[0]
        recording.open_pass(False)
        alone = tape.pull(output, first, parameters.values())
        recording.close_pass()
    wrong: dict[str, float] = {}
    for (name, parameter), g, own in zip(parameters.items(), whole, alone, strict=True):
        if g is None:
            continue
        values = seen.get(name, torch.zeros(tape.examples, dtype=g.dtype))
        pairs = [(g, values.sum())] + ([(own, values[0])] if own is not None else [])
        scale = float(g.double().norm())
        off = max(abs(float((one.double() * directions[name].double()).sum()) - float(value)) for one, value in pairs)
        rounding = 10 * torch.finfo(parameter.dtype).eps * sizes.get(name, 0.0) ** 0.5  # of sums that cancel
        if scale > 0 and not off <= TOLERANCES.get(parameter.dtype, 0.05) * scale + rounding:
            wrong[name] = off / scale
    return wrong


def _projected(sample: Sample, direction: dict[str, Tensor]) -> tuple[Tensor, float]:
    """⟨Σ_t g āᵀ, W̄(R)⟩ of every example, and the sum of the squares of its terms."""
    layer = sample.layer
    matrix = layer.matrix(direction).to(sample.dtype)
    inner = layer.inner if isinstance(layer, ViewedLayer) else layer
    weight = matrix[..., : layer.in_features]
    if isinstance(inner, EmbeddingLayer):
        x = torch.cat([c.x.reshape(sample.examples, -1) for c in sample.calls if c.x is not None], dim=1)
        mapped = weight[0].mT[x][None]
        if inner.padding is not None:
            mapped = mapped * (x != inner.padding)[None, :, :, None].to(mapped.dtype)
    else:
        mapped = sample.features @ weight[:, None].mT
    if layer.biased:
        mapped = mapped + matrix[:, None, None, :, -1]
    terms = mapped * sample.output_gradients
    return terms.sum((0, 2, 3)), float(terms.square().sum())


def _ignore(*_: object) -> None:
    """The survey has reported these already."""
