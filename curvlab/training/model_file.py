"""The trained network in a file that `curvlab analyze` takes with no further options."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from curvlab.formats.curvlab_file.file import save
from curvlab.formats.curvlab_file.fop_matrices import fop_matrices
from curvlab.optim.core import Optimizer
from curvlab.optim.fop.fop import FOP
from curvlab.training.companions import write_companions
from curvlab.training.task import Task


def write_model(path: Path, module: nn.Module, task: Task, optimizer: Optimizer) -> None:
    """`curvlab.save` with what the task knows of the network and what FOP has learned.

    Raises:
        CheckpointError: it cannot be written; an older file is then as it was.
    """
    fop = fop_matrices(optimizer.matrices, optimizer.forms) if isinstance(optimizer, FOP) else None
    likelihood = task.problem.likelihood
    write_companions(path.parent, module, task.folders)
    save(path, module, architecture=task.architecture, data=task.data, likelihood=likelihood, fop=fop)
