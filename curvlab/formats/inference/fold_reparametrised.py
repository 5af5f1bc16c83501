"""Weight norm, spectral norm and pruning, in the old form (name suffixes) and the new one (`parametrizations`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from curvlab.formats.inference.fold import Finder, Fold, Specs, working, working_spec
from curvlab.formats.names import split

_PARAMETRISED = re.compile(r"(?:(?P<layer>.+)\.)?parametrizations\.(?P<role>[^.]+)\.original(?P<part>[01]?)")


def norm_times_direction(g: Tensor, v: Tensor) -> Tensor:
    """W = g · v / ‖v‖, the norm over every axis along which g has one number (Salimans & Kingma 2016, eq. 2).

    Args:
        g: norms, of the shape of v with ones along the axes normalised over; or a scalar.
        v: directions, of the weight's shape.
    """
    g, v = working(g), working(v)
    axes = [axis for axis in range(v.ndim) if g.ndim == 0 or g.shape[axis] == 1]
    weight: Tensor = g * v / torch.linalg.vector_norm(v, dim=axes, keepdim=True)
    return weight


def over_spectral_norm(w: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """W = w / (uᵀ w v), with the stored singular vectors u (o,) and v (i,) (Miyato et al. 2018, eq. 8).

    A convolution is unrolled along its outputs, a transposed one along its second axis. Where both fit, the right
    unrolling is the one for which u and v are singular vectors, and so gives the larger value.
    """
    w, u, v = working(w), working(u), working(v)
    unrolled = [w.movedim(axis, 0).reshape(w.shape[axis], -1) for axis in _axes(w.shape, u.shape[0])]
    return w / torch.stack([u @ matrix @ v for matrix in unrolled]).max()


def masked(w: Tensor, mask: Tensor) -> Tensor:
    """W = w ⊙ mask (torch.nn.utils.prune)."""
    return working(w) * mask.to(working(w).dtype)


def _weight_norm(specs: Specs, tensors: Mapping[str, Tensor]) -> Iterator[Fold]:
    for name, spec in specs.items():
        parts, found = None, _PARAMETRISED.fullmatch(name)
        if found and found["part"] == "0":
            parts, layer, role = (name, f"{name[:-1]}1"), found["layer"] or "", found["role"]
        elif name.endswith("_g"):
            parts, (layer, role) = (name, f"{name[:-2]}_v"), split(name[:-2])
        if parts and parts[1] in specs and _fits_norm(spec.shape, specs[parts[1]].shape) and spec.is_float:
            v = specs[parts[1]]
            evidence = f"weight norm put together from {split(parts[0])[1]} and {split(parts[1])[1]}"
            yield Fold(layer, role, working_spec(v), parts, norm_times_direction, evidence)


def _spectral_norm(specs: Specs, tensors: Mapping[str, Tensor]) -> Iterator[Fold]:
    for name, spec in specs.items():
        parts, found = None, _PARAMETRISED.fullmatch(name)
        if found and not found["part"]:
            base = name.removesuffix(".original")
            parts, layer, role = (name, f"{base}.0._u", f"{base}.0._v"), found["layer"] or "", found["role"]
        elif name.endswith("_orig"):
            base = name.removesuffix("_orig")
            parts, (layer, role) = (name, f"{base}_u", f"{base}_v"), split(base)
        if parts and all(part in specs for part in parts) and spec.is_float:
            u, v = specs[parts[1]], specs[parts[2]]
            if _axes(spec.shape, u.elements) and u.elements * v.elements == spec.elements:
                evidence = "divided by its spectral norm, from the stored singular vectors"
                yield Fold(layer, role, working_spec(spec), parts, over_spectral_norm, evidence)


def _pruned(specs: Specs, tensors: Mapping[str, Tensor]) -> Iterator[Fold]:
    for name, spec in specs.items():
        base = name.removesuffix("_orig")
        mask = specs.get(f"{base}_mask")
        if base != name and spec.is_float and mask is not None and mask.shape == spec.shape:
            yield Fold(*split(base), working_spec(spec), (name, f"{base}_mask"), masked, "pruned by its stored mask")


def _fits_norm(g: tuple[int, ...], v: tuple[int, ...]) -> bool:
    return not g or (len(g) == len(v) and 1 in g and all(a in (1, b) for a, b in zip(g, v, strict=True)))


def _axes(shape: tuple[int, ...], size: int) -> list[int]:
    return [axis for axis in range(min(len(shape), 2)) if shape[axis] == size] if len(shape) > 1 else []


FINDERS: tuple[Finder, ...] = (_weight_norm, _spectral_norm, _pruned)
