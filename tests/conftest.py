"""Shapes in the annotations become run-time checks for the numerical rooms, before any of them is imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from curvlab.reproducible import VARIABLE, reproducible

# Tests that compare bits of what was computed twice rely on it (docs/training.md); pytest itself never needs torch.
if "torch" in sys.modules and VARIABLE not in os.environ:
    raise pytest.UsageError(f"torch was imported before {VARIABLE} was set: use make test, or set {VARIABLE}=AUTO")
reproducible()

import curvlab.analyses.settings  # noqa: E402, F401 - before the hook: it answers wrong values itself, in sentences

sys.path.insert(0, str(Path(__file__).parent))

_CHECKED = [
    "layers",
    "capture",
    "statistics",
    "operators",
    "likelihoods",
    "curvature",
    "analyses",
    "linalg",
    "curvatures",
    "optim.adam_step",
    "optim.fop.learned",
    "optim.fop.learned_matrix",
    "optim.kbfgs.inverses",
    "optim.kbfgs.layer_inverses",
    "optim.kbfgs.moment_product",
    "optim.kbfgs.pair_damping",
    "optim.kbfgs.pair_gate",
    "optim.kbfgs.recipe",
    "optim.levenberg_marquardt",
    "optim.lnb.neuron_map",
    "optim.lnb.neuron_metric",
    "optim.lnb.neuron_stack",
    "optim.lnb.neurons",
    "optim.lnb.normal_equation",
    "optim.norm_constraint",
    "optim.quadratic_model",
]
install_import_hook([f"curvlab.{room}" for room in _CHECKED], "shape_checker.check")

import torch  # noqa: E402 - after the hook, so that nothing of curvlab is imported before it


@pytest.fixture(autouse=True)
def _reproducible() -> None:
    torch.manual_seed(0)


@pytest.fixture
def float64() -> object:
    """Double precision by default, for comparisons with dense oracles."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(previous)
