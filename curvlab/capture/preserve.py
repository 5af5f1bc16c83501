"""`preserve`: restores a model's buffers and modes, and the generators that it draws from, after it has run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class ModelState:
    """What a forward pass may change of a model, and of the process that runs it.

    Attributes:
        buffers: module, the buffer's name in it, the tensor that stood there and a copy of its values.
        modes: module and whether it was in train mode.
        generators: see `generator_states`.
    """

    buffers: tuple[tuple[nn.Module, str, Tensor, Tensor], ...]
    modes: tuple[tuple[nn.Module, bool], ...]
    generators: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module) -> ModelState:
        """The state now; generators keep theirs in the host's memory, so that no device is waited for."""
        buffers = tuple(
            (module, name, buffer, buffer.clone())
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        )
        modes = tuple((module, module.training) for module in model.modules())
        return cls(buffers, modes, generator_states(model))

    def restore(self) -> None:
        """Puts all of it back; a buffer that was assigned anew is the old tensor again."""
        set_generator_states(self.generators)
        for module, training in self.modes:
            if module.training is not training:
                module.training = training
        with torch.no_grad():
            for module, name, buffer, values in self.buffers:
                if module._buffers[name] is not buffer:  # not by getattr: modules of Keras hide their buffers
                    module._buffers[name] = buffer
                buffer.copy_(values)


@contextmanager
def preserve(model: nn.Module) -> Iterator[None]:
    """Afterwards, and also when the model raises, buffers, train or eval mode and generators are as before.

    Buffers are batch norm's running statistics and their count, among others; generators are those of the CPU and of
    every CUDA device of the model.
    """
    state = ModelState.of(model)
    try:
        yield
    finally:
        state.restore()


def generator_states(model: nn.Module) -> dict[str, Tensor]:
    """State of the generator of the CPU, "cpu", and of every CUDA device of the model, "cuda:0", …"""
    states = {"cpu": torch.get_rng_state()}
    states.update({device: torch.cuda.get_rng_state(device) for device in cuda_devices(model)})
    return states


def set_generator_states(states: Mapping[str, Tensor]) -> None:
    """Makes the generators draw what they drew when `generator_states` was called."""
    for device, state in states.items():
        if device == "cpu":
            torch.set_rng_state(state)
        else:
            torch.cuda.set_rng_state(state, device)


def seed_generators(model: nn.Module, seed: int) -> None:
    """`torch.manual_seed` for the generators that `preserve` restores, and for no other."""
    torch.default_generator.manual_seed(seed)
    for device in cuda_devices(model):
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def cuda_devices(model: nn.Module) -> list[str]:
    """Names of the CUDA devices that hold parameters or buffers of the model."""
    return sorted({str(t.device) for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"})


@contextmanager
def frozen(model: nn.Module, but: Iterable[Tensor] = ()) -> Iterator[None]:
    """Only the parameters in `but` ask for a gradient inside: autograd stores no inputs for the others' gradients."""
    wanted = {id(p) for p in but}
    before = [(p, p.requires_grad) for p in model.parameters()]
    for p, _ in before:
        p.requires_grad_(id(p) in wanted)
    try:
        yield
    finally:
        for p, asked in before:
            p.requires_grad_(asked)
