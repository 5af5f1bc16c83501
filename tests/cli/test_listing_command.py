"""`curvlab list optimizers` and `curvlab list problems`."""

from __future__ import annotations

import json

from curvlab.optim import OPTIMIZERS
from curvlab.problems.registry import names


def listed(inside, subject):
    run = inside("list", subject, "--json", "-")
    assert run.returncode == 0
    return {entry["name"]: entry for entry in json.loads(run.stdout)["entries"]}


def test_optimizers_with_defaults_and_sources(inside):
    found = listed(inside, "optimizers")
    assert list(found) == list(OPTIMIZERS)
    assert "damping=0.01" in found["kfac"]["settings"]
    assert "fisher_type=mc" in found["kfac"]["settings"]
    assert "Grosse" in found["kfac"]["source"]
    assert all(entry["what"] and entry["source"] for entry in found.values())
    text = inside("list", "optimizers").stdout
    assert all(name in text for name in OPTIMIZERS)


def test_problems_with_data_and_sources(inside):
    found = listed(inside, "problems")
    assert list(found) == list(names())
    assert found["digits-mlp"]["data"] == "digits-16x16"
    assert found["digits-mlp"]["a run"] == "20 epochs, batches of 100"
    assert "block-fisher" in found["digits-mlp"]["settings for"]
    assert "block-fisher" not in found["mnist-autoencoder"]["settings for"]
    assert all(entry["what"] and entry["source"] for entry in found.values())
