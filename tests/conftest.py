"""Shapes in the annotations become run-time checks for the numerical rooms, before any of them is imported.

`CURVLAB_TEST_DEVICE=cuda` puts the tensors that the numerical tests make on that device, "foreign" on the one of
`foreign_device.py`; annotations are not checked there, since a bare machine need not have what checks them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from curvlab.reproducible import VARIABLE, reproducible

# Tests that compare bits of what was computed twice rely on it (docs/training.md); pytest itself never needs torch.
if "torch" in sys.modules and VARIABLE not in os.environ:
    raise pytest.UsageError(f"torch was imported before {VARIABLE} was set: use make test, or set {VARIABLE}=AUTO")
reproducible()

import curvlab.analyses.settings  # noqa: E402, F401 - before the hook: it answers wrong values itself, in sentences

DEVICE = os.environ.get("CURVLAB_TEST_DEVICE", "cpu")
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
    "optim.kbfgs.feature_total",
    "optim.kbfgs.inverses",
    "optim.kbfgs.layer_inverses",
    "optim.kbfgs.moment_product",
    "optim.kbfgs.pair_damping",
    "optim.kbfgs.pair_gate",
    "optim.kbfgs.recipe",
    "optim.levenberg_marquardt",
    "optim.lnb.feature_sums",
    "optim.lnb.neuron_map",
    "optim.lnb.neuron_metric",
    "optim.lnb.neuron_stack",
    "optim.lnb.neurons",
    "optim.lnb.normal_equation",
    "optim.norm_constraint",
    "optim.quadratic_model",
]
if DEVICE == "cpu":
    install_import_hook([f"curvlab.{room}" for room in _CHECKED], "shape_checker.check")

import torch  # noqa: E402 - after the hook, so that nothing of curvlab is imported before it

if DEVICE == "foreign":
    import foreign_device

    foreign_device.install()


@pytest.fixture
def empty_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that holds nothing, and batches that take nothing: what is left are the averages."""
    from curvlab.analyses.batch_plan import BatchPlan

    monkeypatch.setattr("curvlab.analyses.analysis_plan.held_memory", lambda device: 0)
    monkeypatch.setattr("curvlab.analyses.analysis_plan.batch_plan", lambda asked, *_: BatchPlan(asked or 256, 0))


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    torch.manual_seed(0)
    if DEVICE == "cpu":
        yield
        return
    torch.set_default_device(DEVICE)
    yield
    torch.set_default_device(None)


@pytest.fixture
def float64() -> object:
    """Double precision by default, for comparisons with dense oracles."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(previous)
