"""DataOptions: how a comparison reads data, and where it computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from curvlab.conditions import Device, DtypeName, LossName, MaxMemory, Seed
from curvlab.field_types import FROM_ONE
from curvlab.fields import Declared, Setting


@dataclass(frozen=True)
class DataOptions(Declared):
    """Data, examples in all and per batch, loss, seed, device, element type, memory.

    Raises:
        CommandError: naming every wrong value at once.
    """

    data: Annotated[
        Any,
        Setting("A dataset's name or a path; in place of a problem's own. In Python also (x, y).", written="SPEC"),
    ] = None
    samples: Annotated[
        int | None, Setting("Examples for directions; all without, and 1024 beside a saved model.", FROM_ONE)
    ] = None
    batch_size: Annotated[int | None, Setting("Examples per batch of directions.", FROM_ONE)] = None
    loss: Annotated[
        LossName,
        Setting("Loss of a network that is no problem: cross-entropy, bce, mse, next-token, or auto, by its targets."),
    ] = "auto"
    seed: Annotated[Seed, Setting("Seed of weights, order, and draws.")] = 0
    device: Device = "auto"
    dtype: Annotated[DtypeName, Setting("Type of weights and data.")] = "float32"
    max_memory: MaxMemory = None
