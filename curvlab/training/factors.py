"""factors.safetensors: the optimizer's averaged statistics, named UNIT.STATISTIC, their scale in the metadata."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from curvlab.errors import CurvlabError
from curvlab.formats.whole_file import whole_file
from curvlab.optim.core import Optimizer

SCALE = (
    "per-example statistics are means over examples (and, for 'gradient' of K-FAC, over positions), batch statistics "
    "those of the mean gradient, as defined in docs/curvature.md; averaged over steps with the optimizer's 'decay'"
)


def save_factors(path: Path, optimizer: Optimizer, settings: dict[str, object]) -> None:
    """Write `optimizer.averages`; the file is there completely or not at all.

    Raises:
        CurvlabError: it cannot be written, or there are no statistics yet.
    """
    tensors = {
        f"{unit}.{statistic}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for unit, statistics in optimizer.averages.items()
        for statistic, tensor in statistics.items()
    }
    if not tensors:
        raise CurvlabError(f"{optimizer.name} has no factors yet", "no step was taken and there was no warm start")
    metadata = {
        "curvlab.factors": "1",
        "optimizer": optimizer.name,
        "settings": json.dumps(settings),
        "steps": str(optimizer.steps),
        "scale": SCALE,
    }
    with whole_file(path) as beside:
        save_file(tensors, beside, metadata)
