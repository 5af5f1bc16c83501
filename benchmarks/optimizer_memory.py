"""Memory of the optimizers on the MNIST autoencoder: their states beside Ren 2022, Table 4.1, and a step's peak.

Ren 2022, section 4.6, counts what a method needs beyond SGD, for a tensor of d_1 × … × d_k: TNT and Shampoo Σ d_i²
numbers, Adam-like methods Π d_i, each up to a constant. Here the unit of that constant is printed: 1 is the table's sum
taken as it is; a factor's average and its inverse are 2 of them. For K-FAC, a layer with a bias is a tensor of
o × (i + 1).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.memory import peak_mebibytes
from curvlab.optim import create
from curvlab.problems.registry import problem

METHODS = ("sgd", "adam", "kfac", "ekfac", "tnt", "shampoo")
STEPS = 3


def table(name: str, shapes: list[tuple[int, int]]) -> tuple[str, int]:
    """The formula of Ren 2022, Table 4.1 for a method, and its numbers over all layers (o, i) with their biases."""
    if name == "adam":
        return "Π d_i", sum(o * i + o for o, i in shapes)
    if name in ("tnt", "shampoo"):
        return "Σ d_i²", sum(o * o + i * i + o * o for o, i in shapes)
    if name in ("kfac", "ekfac"):
        return "Σ d_i²", sum(o * o + (i + 1) ** 2 for o, i in shapes)
    return "0", 0


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of a nested state."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from tensors(one)


def size(state: dict[str, Any]) -> int:
    """Bytes of the storages behind a state; what two tensors share counts once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors(state)}
    return sum(storages.values())


def work(name: str) -> None:
    """Take a few steps, each with statistics and a renewal; print bytes of state, and MiB of peak: rise and whole."""
    chosen = problem("mnist-autoencoder")
    model, x = chosen.build(0), torch.rand(chosen.batch_size, *chosen.input_shape)
    optimizer = create(name, model, likelihood=chosen.likelihood, **{**chosen.settings[name], "lr": 1e-7})
    chosen.loss(model(x[:2]), x[:2]).backward()
    model.zero_grad()
    before = peak_mebibytes()
    for _ in range(STEPS):
        optimizer.step(lambda: chosen.loss(model(x), x))
    print(size(optimizer.state_dict()), peak_mebibytes() - before, peak_mebibytes())


def measure() -> None:
    """Print the table; every method in a process of its own."""
    shapes = [(p.shape[0], p.shape[1]) for p in problem("mnist-autoencoder").build(0).parameters() if p.ndim == 2]
    print("\n### Memory on the MNIST autoencoder (batch 1,000), MiB\n")
    print(
        "| optimizer | state | beyond SGD-m | Ren 2022, Table 4.1 | times that "
        "| peak of a step above start | whole process |"
    )
    print("|---|---|---|---|---|---|---|")
    momentum = 0.0
    for name in METHODS:
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            f"from benchmarks.optimizer_memory import work; work({name!r})",
        ]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        state, rise, whole = map(float, printed.split())
        momentum = momentum or state
        formula, numbers = table(name, shapes)
        beyond = state - momentum
        share = f"{beyond / (4 * numbers):.2f}" if numbers else ""
        known = f"{formula} = {4 * numbers / 2**20:.0f}"
        print(f"| {name} | {state / 2**20:.0f} | {beyond / 2**20:.0f} | {known} | {share} | {rise:.0f} | {whole:.0f} |")
