"""Registers TorchScript archives."""

from __future__ import annotations

from curvlab.formats.format import Format, deferred, register

register(
    Format(
        name="torchscript",
        what="a TorchScript archive",
        support="runnable",
        detect=lambda candidate: {"data.pkl", "constants.pkl"} <= candidate.inner_entries,
        read=deferred("curvlab.formats.torchscript.file:read_torchscript"),
        network=deferred("curvlab.formats.torchscript.network:torchscript_network"),
        needs="its network is code in the file; its weights are read without running any",
        trust=True,
    )
)
