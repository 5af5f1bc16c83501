"""check_layer: the contract that every layer adapter keeps, for the built-in ones and for plugins alike.

Checked against autograd in float64: the per-example gradient Σ_t g āᵀ of every parameter, through the same capture
that the analyses and optimizers use; that `matrix` and `split` are inverse; that the cheap methods for Σ a, Σ aaᵀ and
Σ ggᵀ agree with the rows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from curvlab.capture.model_inputs import Inputs, batch_size, call_model
from curvlab.capture.sample import Call, Sample, example_axis, per_example_gradients
from curvlab.capture.survey import survey, use_key
from curvlab.capture.tape import Tape
from curvlab.layers.layer import Layer
from curvlab.linalg.gram import mirrored


def check_layer(module: nn.Module, example_input: Inputs, *, tolerance: float = 1e-9, seed: int = 0) -> None:
    """Check that curvlab sees `module` as it is: AssertionError says which promise is broken, and by how much.

    Args:
        module: the layer, of a registered type; it is copied and converted to float64, in the mode it is in.
        example_input: a batch (a tensor, a tuple of arguments, or keyword arguments) of at least three examples,
            whose other sizes
            differ from the number of examples, so that the axis of examples can be recognised.
        tolerance: largest allowed difference relative to the largest entry; float64 rounding needs about 1e-12.
        seed: of the random cotangents.
    """
    generator = torch.Generator().manual_seed(seed)
    module = copy.deepcopy(module).double()
    inputs = _double(example_input)
    count = batch_size(inputs)
    if count < 3:
        raise AssertionError(f"give at least three examples, not {count}")
    wrapper = _Wrapper(module)
    found = survey(wrapper, inputs)
    if found.refused:
        raise AssertionError(f"not all of the module could be recorded: {found.refused}")
    uncovered = {n for n, _ in wrapper.named_parameters()} - {
        p for b in found.blocks.values() for p in b.parameters.values()
    }
    if uncovered:
        raise AssertionError(f"parameters in no block: {sorted(uncovered)}")

    calls: dict[str, list[Call]] = {}

    def on_output_gradient(_: str, call: Call, g: Tensor) -> None:
        call.g = g

    def on_call(use: str, call: Call) -> None:
        calls.setdefault(found.block_of[use_key(use, call.layer)], []).append(call)

    with Tape(wrapper, found.modules, on_call, on_output_gradient, lambda name, why: None) as tape:
        recorded = _outputs(tape.run(inputs))
        cotangents = [torch.randn(z.shape, generator=generator, dtype=z.dtype) for z in recorded]
        total = torch.stack([(z * c).sum() for z, c in zip(recorded, cotangents, strict=True)]).sum()
        tape.pull(total, torch.ones_like(total))
    plain = _outputs(call_model(wrapper, inputs))
    for mine, own in zip(recorded, plain, strict=True):
        _close("the output of the recorded forward differs from the module's own", mine, own, tolerance)
    expected = _gradients(wrapper, plain, cotangents, count)
    seen: dict[str, Tensor] = {}
    for name, block in found.blocks.items():
        sample = Sample(calls[name], count, torch.float64)
        _check_maps(block.layer, sample, tolerance)
        for role, gradient in block.layer.split(
            per_example_gradients(block.layer, sample.features, sample.output_gradients)
        ).items():
            parameter = block.parameters[role]
            seen[parameter] = seen[parameter] + gradient if parameter in seen else gradient
    for parameter, gradient in seen.items():
        _close(f"per-example gradients of {parameter} differ from autograd's", gradient, expected[parameter], tolerance)


def _check_maps(layer: Layer, sample: Sample, tolerance: float) -> None:
    parameters = {role: p.detach() for role, p in layer.parameters.items()}
    matrix = layer.matrix(parameters)
    wanted = (layer.groups, layer.out_features, layer.in_features + layer.biased)
    if tuple(matrix.shape) != wanted:
        raise AssertionError(f"matrix() has shape {tuple(matrix.shape)}, groups, height and width say {wanted}")
    for role, tensor in layer.split(matrix).items():
        _close(f"split(matrix(.)) changes {role!r}", tensor, parameters[role], 0.0)
    moments, rows = sample.feature_moments(), sample.features.flatten(1, 2)
    second = torch.diag_embed(moments.second) if moments.diagonal else mirrored(moments.second.clone())
    if rows.shape[1] != moments.rows or sample.positions * sample.examples != moments.rows:
        raise AssertionError(
            f"{rows.shape[1]} rows of features, {moments.rows} in second_moment, {sample.positions} positions"
        )
    scale = rows.abs().sum(1).max().item() if rows.numel() else 1.0  # normalised features sum to zero
    _close("second_moment() differs from the rows' sum", moments.total, rows.sum(1), tolerance, scale)
    _close("second_moment() differs from the rows' products", second, rows.mT @ rows, tolerance)
    output_gradients = sample.output_gradients.flatten(1, 2)
    _close(
        "output_gradient_moment() differs from the rows' products",
        mirrored(sample.output_gradient_moment.clone()),
        output_gradients.mT @ output_gradients,
        tolerance,
    )


class _Wrapper(nn.Module):
    """The module as a child, so that it has a name."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.layer = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer(*args, **kwargs)


def _gradients(
    model: nn.Module, outputs: Sequence[Tensor], cotangents: Sequence[Tensor], count: int
) -> dict[str, Tensor]:
    """Per-example gradients by autograd, one example after another."""
    parameters = dict(model.named_parameters())
    rows: dict[str, list[Tensor]] = {name: [] for name in parameters}
    for n in range(count):
        total = torch.zeros((), dtype=torch.float64)
        for z, c in zip(outputs, cotangents, strict=True):
            axis = example_axis(z.shape, count, "output")
            total = total + (z.select(axis, n) * c.select(axis, n)).sum()
        gradients = torch.autograd.grad(total, list(parameters.values()), retain_graph=True, allow_unused=True)
        for (name, p), g in zip(parameters.items(), gradients, strict=True):
            rows[name].append(torch.zeros_like(p) if g is None else g)
    return {name: torch.stack(parts) for name, parts in rows.items()}


def _outputs(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _double(inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.double() if inputs.is_floating_point() else inputs
    if isinstance(inputs, dict):
        return {key: _double(part) for key, part in inputs.items()}
    return tuple(_double(part) for part in inputs) if isinstance(inputs, tuple) else inputs


def _close(what: str, mine: Tensor, wanted: Tensor, tolerance: float, scale: float = 0.0) -> None:
    if mine.shape != wanted.shape:
        raise AssertionError(f"{what}: shapes {tuple(mine.shape)} and {tuple(wanted.shape)}")
    if mine.numel() == 0:
        return
    error = (mine - wanted).abs().max().item()
    scale = max(scale, wanted.abs().max().item(), 1e-300)
    if not error <= tolerance * scale:
        raise AssertionError(f"{what} by {error:.3g} (largest entry {scale:.3g})")
