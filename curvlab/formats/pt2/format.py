"""Registers torch.export archives."""

from __future__ import annotations

from curvlab.formats.candidate import Candidate
from curvlab.formats.format import Format, deferred, register


def _detect(candidate: Candidate) -> bool:
    names = candidate.inner_entries.union(candidate.entries)
    return "data.pkl" not in candidate.inner_entries and not names.isdisjoint(
        {"archive_format", "serialized_exported_program.json"}
    )


register(
    Format(
        name="pt2",
        what="a torch.export archive (.pt2)",
        support="runnable",
        detect=_detect,
        read=deferred("curvlab.formats.pt2.file:read_pt2"),
        network=deferred("curvlab.formats.pt2.network:exported_network"),
        needs="its network is code in the file; its weights are read without running any",
        trust=True,
        suffixes=(".pt2",),
    )
)
