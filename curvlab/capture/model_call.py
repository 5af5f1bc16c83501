"""ModelCall: what is needed to run a call of the model again as it ran: its arguments, the random state that dropout
drew from, and autocast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from curvlab.capture.preserve import generator_states, preserve, set_generator_states


@dataclass(frozen=True, eq=False)
class ModelCall:
    """A call `model(*args, **kwargs)`, to be repeated while the model's mode (train or eval) is what it was.

    Attributes:
        args: positional arguments; tensors are referred to, not copied.
        kwargs: keyword arguments.
        device: type of the model's device.
        random: states of the generators just before the call: "cpu", and one per CUDA device of the model.
        autocast: the type that autocast computed in, None without autocast.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    device: str
    random: Mapping[str, Tensor]
    autocast: torch.dtype | None

    @classmethod
    def of(cls, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ModelCall:
        """The call that is just beginning: to be made in a forward pre-hook of the model, before anything is drawn.

        Generators keep their state in the host's memory, so that no device is waited for.
        """
        device = next((p.device.type for p in model.parameters()), "cpu")
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return cls(args, kwargs, device, generator_states(model), autocast)

    @contextmanager
    def again(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model draws the masks of the recorded call; afterwards the model and random state are as before.

        What runs inside must be one forward of the model; a closure that also computes its loss will do.
        """
        with preserve(model):
            set_generator_states(self.random)
            # Weights may have moved since autocast has seen them, and may move back afterwards.
            torch.clear_autocast_cache()
            try:
                with torch.autocast(self.device, self.autocast, enabled=self.autocast is not None):
                    yield
            finally:
                torch.clear_autocast_cache()
