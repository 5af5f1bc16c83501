"""Command lines that several tests of the command line start."""

from __future__ import annotations

WEIGHTS = ("analyze", "model.safetensors")
FULL = (*WEIGHTS, "--architecture", "mynet:build", "--data", "digits", "--samples", "60")
