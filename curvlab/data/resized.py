"""Pictures at another size: bilinear with the filter widened when they shrink, so that no pixel is passed over."""

from __future__ import annotations

from dataclasses import replace

from curvlab.data.budget import within
from curvlab.data.dataset import Dataset
from curvlab.errors import DataError


def resized(dataset: Dataset, size: tuple[int, int], max_memory: int | None = None) -> Dataset:
    """x `(n, c, h, w)` of whole numbers 0 to 255, or of real ones, as `(n, c, *size)` of the same type.

    Raises:
        DataError: the examples are no pictures.
        MemoryBudgetError: at that size they do not fit into `max_memory`.
    """
    import torch

    x = dataset.x
    if x.ndim not in (3, 4):
        shape = "x".join(map(str, x.shape[1:]))
        raise DataError(f"{dataset.source} holds examples of shape {shape}", "only pictures have another size")
    pictures = x[:, None] if x.ndim == 3 else x
    if tuple(pictures.shape[-2:]) == size:
        return dataset
    within(x.shape[0] * pictures.shape[1] * size[0] * size[1] * x.element_size(), max_memory, dataset.source)
    made = torch.nn.functional.interpolate(pictures.float(), size=size, mode="bilinear", antialias=True)
    made = made.round().clamp(0, 255).to(x.dtype) if not x.is_floating_point() else made.to(x.dtype)
    note = f"pictures resized from {x.shape[-2]}x{x.shape[-1]} to {size[0]}x{size[1]}, bilinearly with antialiasing"
    return replace(dataset, x=made[:, 0] if x.ndim == 3 else made, notes=(*dataset.notes, note))
