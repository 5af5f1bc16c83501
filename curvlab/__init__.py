"""curvlab: the microscope for the curvature of saved neural networks.

    checkpoint = curvlab.load("model.safetensors")
    analysis = curvlab.analyze(checkpoint, data="digits")

Names are imported when they are first used, so that `import curvlab` and `curvlab --help` do not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from curvlab import curvature, optim
    from curvlab.analyses.analyze import analyze, estimate
    from curvlab.analyses.factors import save_factors
    from curvlab.analyses.results import Analysis
    from curvlab.comparison.compare import compare
    from curvlab.comparison.results import Comparison
    from curvlab.errors import CurvlabError
    from curvlab.factor_files.file import load_factors
    from curvlab.formats.checkpoint import Checkpoint
    from curvlab.formats.curvlab_file.file import save
    from curvlab.formats.load import load
    from curvlab.training.train import train

_HOMES = {
    "Analysis": "curvlab.analyses.results",
    "Checkpoint": "curvlab.formats.checkpoint",
    "Comparison": "curvlab.comparison.results",
    "CurvlabError": "curvlab.errors",
    "analyze": "curvlab.analyses.analyze",
    "compare": "curvlab.comparison.compare",
    "estimate": "curvlab.analyses.analyze",
    "load": "curvlab.formats.load",
    "load_factors": "curvlab.factor_files.file",
    "save": "curvlab.formats.curvlab_file.file",
    "save_factors": "curvlab.analyses.factors",
    "train": "curvlab.training.train",
}

__all__ = [
    "Analysis",
    "Checkpoint",
    "Comparison",
    "CurvlabError",
    "__version__",
    "analyze",
    "compare",
    "curvature",
    "estimate",
    "load",
    "load_factors",
    "optim",
    "save",
    "save_factors",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in ("curvature", "optim"):
        return importlib.import_module(f"curvlab.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'curvlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
