"""Settings: defaults, and every wrong value named at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from curvlab.analyses.settings import Settings
from curvlab.errors import CommandError


def test_the_defaults_are_valid_and_plain():
    values = Settings().to_dict()
    assert values["loss"] == "auto"
    assert values["layers"] == []
    assert values["analyses"] is None


WRONG = {
    "loss": "hinge",
    "fisher_type": "fisher",
    "mc_samples": 0,
    "kfac_approx": "sum",
    "statistic": "mean",
    "analyses": ("weights", "spectra"),
    "samples": -1,
    "batch_size": 0,
    "layers": ("",),
    "dtype": "float16",
    "device": "gpu",
    "max_memory": -5,
    "seed": -1,
}


def test_all_wrong_values_are_in_one_message():
    with pytest.raises(CommandError) as error:
        Settings(**WRONG)
    for name in WRONG:
        assert name in str(error.value)
    assert "'hinge', not one of auto, cross-entropy, bce, mse" in str(error.value)
    assert error.value.exit_code == 2


def test_values_of_a_wrong_type_are_named_too():
    """In a process of its own: here the annotations are checked at run time and would answer first."""
    code = """
from curvlab.analyses.settings import Settings
from curvlab.errors import CommandError
required = ("loss", "fisher_type", "mc_samples", "kfac_approx", "statistic", "dtype", "device", "seed")
wrong = [*((name, None) for name in required), ("batch_size", 2.5), ("max_memory", True), ("analyses", "weights")]
for name, value in wrong:
    try:
        Settings(**{name: value})
    except CommandError as error:
        assert name in str(error), error
    else:
        raise AssertionError(name)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "mps", "auto"])
def test_devices(device):
    assert Settings(device=device).device == device


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "tpu:0", ""])
def test_wrong_devices(device):
    with pytest.raises(CommandError, match="device"):
        Settings(device=device)


def test_analyses_are_ordered_and_single():
    assert Settings(analyses=("kfac", "weights", "kfac")).analyses == ("weights", "kfac")
    with pytest.raises(CommandError, match="empty"):
        Settings(analyses=())
