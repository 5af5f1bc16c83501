"""Integers and 8-bit floats with scales, turned back into weights where names and shapes leave one reading only.

What is not listed here (AWQ, NF4, MXFP4, three-bit packing, asymmetric GPTQ of unknown offset, …) stays packed: it is
reported, and not analysed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.inference.fold import Finder, Fold, Specs
from curvlab.formats.names import split

FP8 = frozenset({"float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"})
BLOCK = 128  # rows and columns that share a scale in files with `weight_scale_inv`
GPTQ_BITS = (2, 4, 8)


def scaled(q: Tensor, scale: Tensor, zero: Tensor | None = None, *, unit: float = 1.0) -> Tensor:
    """W = (q − z) · scale / unit, one scale for the whole tensor or one for each row (first axis)."""
    centred = q.float() if zero is None else q.float() - _per_row(zero, q.ndim)
    return centred * (_per_row(scale, q.ndim) / unit)


def block_scaled(q: Tensor, scale: Tensor) -> Tensor:
    """W = q · scale, one scale for each block of 128 × 128."""
    rows, columns = q.shape
    wide = scale.float().repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)[:, :columns]
    return q.float() * wide


def unpacked_gptq(qweight: Tensor, scales: Tensor, groups: Tensor, *, bits: int, zero: int) -> Tensor:
    """W[o, i] = scales[group(i), o] · (q[i, o] − zero), with 32/bits values of q in each int32, lowest bits first.

    Args:
        qweight: (i · bits / 32, o) packed integers.
        scales: (groups, o).
        groups: (i,) group of each input.
        bits: width of one value.
        zero: the value that stands for 0.
    """
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    values = (qweight[:, None, :] >> shifts[None, :, None]) & (2**bits - 1)
    q = values.reshape(-1, qweight.shape[1]).float() - zero
    weight: Tensor = q * scales.float()[groups.long()]
    return weight.T.contiguous()


def _per_row(scale: Tensor, ndim: int) -> Tensor:
    return scale.float().reshape(()) if scale.numel() == 1 else scale.float().reshape(-1, *(1,) * (ndim - 1))


def _with_scale(specs: Specs, tensors: Mapping[str, Tensor]) -> Iterator[Fold]:
    for name, spec in specs.items():
        layer, role = split(name)
        if len(spec.shape) < 2 or (spec.dtype != "int8" and spec.dtype not in FP8):
            continue
        if role == "_data" and f"{layer}._scale" in specs:  # quanto: X.weight._data, X.weight._scale
            scale, unit, target = f"{layer}._scale", 1.0, split(layer)
        elif (
            f"{layer}.SCB" in specs and role == "weight"
        ):  # bitsandbytes: the absolute maximum of each row stands for 127
            scale, unit, target = f"{layer}.SCB", 127.0, (layer, role)
        else:
            scale, unit, target = f"{name}_scale", 1.0, (layer, role)
        zero = f"{name}_zero_point"
        if scale not in specs or not _is_per_row(spec, specs[scale]) or not specs[scale].is_float:
            continue
        if zero in specs and not _is_per_row(spec, specs[zero]):
            continue
        parts = (name, scale, zero) if zero in specs else (name, scale)
        evidence = f"{spec.dtype} values times {split(scale)[1]}"
        yield Fold(*target, TensorSpec(spec.shape, "float32"), parts, partial(scaled, unit=unit), evidence)


def _with_block_scale(specs: Specs, tensors: Mapping[str, Tensor]) -> Iterator[Fold]:
    for name, spec in specs.items():
        scale = specs.get(f"{name}_scale_inv")
        if scale is None or spec.dtype not in FP8 or len(spec.shape) != 2:
            continue
        parts = (name, f"{name}_scale_inv")
        evidence = f"{spec.dtype} values times {split(parts[1])[1]}"
        result = TensorSpec(spec.shape, "float32")
        if scale.elements == 1:
            yield Fold(*split(name), result, parts, scaled, evidence)
        elif scale.shape == tuple(-(-size // BLOCK) for size in spec.shape):
            yield Fold(
                *split(name), result, parts, block_scaled, f"{evidence}, one for each block of {BLOCK} × {BLOCK}"
            )


def _gptq(specs: Specs, tensors: Mapping[str, Tensor]) -> Iterator[Fold]:
    """Symmetric GPTQ: one zero for all, which writers store as it is or one less; the value tells which."""
    for name, packed in specs.items():
        layer, role = split(name)
        names = [f"{layer}.{part}" if layer else part for part in ("scales", "g_idx", "qzeros")]
        if role != "qweight" or packed.dtype != "int32" or len(packed.shape) != 2 or not specs.keys() >= {*names}:
            continue
        scales, groups, zeros = (specs[part] for part in names)
        inputs, outputs = groups.elements, packed.shape[1]
        bits = 32 * packed.shape[0] // inputs if inputs else 0
        fits = bits in GPTQ_BITS and packed.shape[0] * 32 == inputs * bits
        if not fits or len(scales.shape) != 2 or scales.shape[1] != outputs or zeros.dtype != "int32":
            continue
        zero, group_of = _common_zero(tensors[names[2]], bits), tensors[names[1]]
        if zero is None or int(group_of.min()) < 0 or int(group_of.max()) >= scales.shape[0]:
            continue
        yield Fold(
            layer,
            "weight",
            TensorSpec((outputs, inputs), "float32"),
            (name, names[0], names[1]),
            partial(unpacked_gptq, bits=bits, zero=zero),
            f"{bits}-bit GPTQ with the common zero {zero}, put together from qweight, scales and g_idx",
        )


def _common_zero(qzeros: Tensor, bits: int) -> int | None:
    """2^(bits−1) when every stored zero is that number or one less (the older convention), else None."""
    middle = 2 ** (bits - 1)
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    stored = torch.unique((qzeros.reshape(-1, 1) >> shifts) & (2**bits - 1)).tolist()
    return middle if stored in ([middle], [middle - 1]) else None


def _is_per_row(weight: TensorSpec, scale: TensorSpec) -> bool:
    """One number, or (o,), (o, 1), (o, 1, 1, 1): anything finer has a grouping that the shape alone does not fix."""
    return scale.elements == 1 or (scale.elements == weight.shape[0] and scale.shape[:1] == weight.shape[:1])


FINDERS: tuple[Finder, ...] = (_with_scale, _with_block_scale, _gptq)
