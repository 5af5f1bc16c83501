"""One line of metrics.jsonl: what is known of a run after a step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Entry = dict[str, Any]
"""
| key | holds |
|---|---|
| step, epoch | steps taken, passes over the training set (a fraction in the middle of one) |
| train, test | {"loss", metrics} over the whole part, with the weights of that moment; null between evaluations |
| batch_loss | mean over the examples of the batches since the epoch began, each before its step |
| seconds | {"train", "warm_start", "evaluation", "saving"} since the run began; train holds warm_start |
| lr, damping | of the last step; damping null where the optimizer has none |
| failures, skipped | inverses that failed in a row, summed over blocks; steps not taken for gradients not finite |
| memory, device_memory | peak bytes: of the process, and of CUDA's allocator, or null |
| counters | what the optimizer counts, where it does: the pairs of K-BFGS (docs/kbfgs.md) |
"""

OPTIONAL = ("damping", "memory", "device_memory")
"""What some optimizers or machines do not have."""


def entry_shape(metrics: Iterable[str]) -> Entry:
    """An entry with every number that can be there, all of them 1."""
    part = dict.fromkeys(("loss", *metrics), 1.0)
    seconds = dict.fromkeys(("train", "warm_start", "evaluation", "saving"), 1.0)
    rest = dict.fromkeys(
        ("batch_loss", "lr", "damping", "failures", "skipped", "memory", "device_memory"),
        1.0,
    )
    return {"step": 1, "epoch": 1, "train": part, "test": dict(part), "seconds": seconds, **rest}
