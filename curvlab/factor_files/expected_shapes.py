"""Whether a tensor can be what a factor file says it is."""

from __future__ import annotations

from curvlab.factor_files.layer_shape import LayerShape
from curvlab.factor_files.statistics import COLUMNS, DIAGONAL, ENERGY, FISHER_DIAGONAL, LOST, MEAN, ROWS
from curvlab.formats.dtypes import TensorSpec

VALUES, VECTORS = "_values", "_vectors"


def expected_shape(statistic: str, layer: LayerShape, spec: TensorSpec) -> str | None:
    """Why a tensor is not that statistic of that layer, in words that follow its name; None where it can be."""
    if spec.dtype not in (("int64",) if statistic.endswith(COLUMNS) else ("float32", "float64")):
        return f"is of {spec.dtype}, not of float64"
    kind, _, role = statistic.partition(".")
    if kind == FISHER_DIAGONAL:
        return _unless(spec.shape == layer.shapes[role], spec, f"that of the parameter, {layer.shapes[role]}")
    widths, groups = layer.widths, layer.groups
    if statistic == MEAN:
        wanted = (groups, layer.in_features)
        return _unless(spec.shape == wanted, spec, str(wanted))
    for base, width in widths.items():
        if statistic == base:
            return _unless(spec.shape == (groups, width, width), spec, str((groups, width, width)))
        if statistic == base + DIAGONAL:
            return _unless(spec.shape == (groups, width), spec, str((groups, width)))
        if statistic == base + ROWS:  # of a biased layer's inputs the 1 can be among them; of columns, some
            fits = len(spec.shape) == 3 and spec.shape[0] == groups and 0 < spec.shape[2] <= width + 1
            return _unless(fits and spec.shape[1] > 0, spec, f"({groups}, rows, at most {width + 1})")
        if statistic == base + LOST:
            return _unless(spec.shape == (), spec, "()")
        if statistic in (base + ENERGY, base + COLUMNS):
            fits = len(spec.shape) == 1 and 0 < spec.shape[0] <= width + 1
            return _unless(fits, spec, f"(at most {width + 1},)")
    for side, width in (("input", widths["input_factor"]), ("gradient", widths["gradient_factor"])):
        if statistic == side + VALUES:
            fits = len(spec.shape) == 2 and spec.shape[0] == groups and 0 < spec.shape[1] <= width
            return _unless(fits, spec, f"({groups}, at most {width})")
        if statistic == side + VECTORS:
            fits = len(spec.shape) == 3 and spec.shape[:2] == (groups, width) and 0 < spec.shape[2] <= width
            return _unless(fits, spec, f"({groups}, {width}, at most {width})")
    return "is of no statistic that curvlab knows"


def _unless(fits: bool, spec: TensorSpec, wanted: str) -> str | None:
    return None if fits else f"has the shape {spec.shape}, not {wanted}"
