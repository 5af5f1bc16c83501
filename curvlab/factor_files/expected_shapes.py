"""Whether a tensor can be what a factor file says it is."""

from __future__ import annotations

from collections.abc import Mapping

from curvlab.factor_files.layer_shape import LayerShape
from curvlab.factor_files.statistics import COLUMNS, DIAGONAL, ENERGY, FISHER_DIAGONAL, LOST, MEAN, ROWS
from curvlab.formats.dtypes import TensorSpec
from curvlab.quoting import quoted

FORMS = ("", DIAGONAL, ROWS, LOST, ENERGY, COLUMNS)
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
        # Of a biased layer's inputs the 1 can be among the rows; `misfit` says how wide each of them must be.
        if statistic == base:
            fits = len(spec.shape) == 3 and spec.shape[0] == groups and 0 < spec.shape[1] == spec.shape[2]
            return _unless(fits, spec, str((groups, width, width)))
        if statistic == base + DIAGONAL:
            return _unless(len(spec.shape) == 2 and spec.shape[0] == groups, spec, str((groups, width)))
        if statistic == base + ROWS:
            fits = len(spec.shape) == 3 and spec.shape[0] == groups and spec.shape[1] > 0
            return _unless(fits, spec, f"({groups}, rows, {width})")
        if statistic == base + LOST:
            return _unless(spec.shape == (), spec, "()")
        if statistic in (base + ENERGY, base + COLUMNS):
            return _unless(len(spec.shape) == 1, spec, f"({width},)")
    for side, width in (("input", widths["input_factor"]), ("gradient", widths["gradient_factor"])):
        if statistic == side + VALUES:
            fits = len(spec.shape) == 2 and spec.shape[0] == groups and 0 < spec.shape[1] <= width
            return _unless(fits, spec, f"({groups}, at most {width})")
        if statistic == side + VECTORS:
            fits = len(spec.shape) == 3 and spec.shape[:2] == (groups, width) and 0 < spec.shape[2] <= width
            return _unless(fits, spec, f"({groups}, {width}, at most {width})")
    return "is of no statistic that curvlab knows"


def misfit(layer: LayerShape, specs: Mapping[str, TensorSpec]) -> str | None:
    """Why the forms of one layer's matrices do not go together; None where they do.

    All are as wide as the matrix, or as the number of columns that are named; a sketch has all of its parts.
    """
    for base, width in layer.widths.items():
        own = {form: specs[base + form].shape for form in FORMS if base + form in specs}
        named = own.pop(COLUMNS, None)
        wide = {width} if named is None else {named[0]}
        if named is None and base == "second_moment" and layer.biased:
            wide.add(width + 1)
        wrong = [form for form, shape in own.items() if form != LOST and shape[-1] not in wide]
        if wrong or (named is not None and not (0 < named[0] <= width and layer.groups == 1)):
            expected = f"{width} wide" if named is None else f"of the {named[0]} columns that are named"
            return f"the {base} of the layer {quoted(layer.name)} is not {expected}"
        if (LOST in own) != (ENERGY in own) or (LOST in own and ROWS not in own) or (named and len(own) == 0):
            return f"the {base} of the layer {quoted(layer.name)} lacks a part"
    return None


def _unless(fits: bool, spec: TensorSpec, wanted: str) -> str | None:
    return None if fits else f"has the shape {spec.shape}, not {wanted}"
