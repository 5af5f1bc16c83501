"""`save_factors` and `load_factors`: a factor file is a safetensors file that says what its tensors are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from curvlab.errors import CheckpointError
from curvlab.factor_files.description import KEY, described, parse
from curvlab.factor_files.expected_shapes import expected_shape, misfit
from curvlab.factor_files.layer_factors import Factors, LayerFactors
from curvlab.factor_files.layer_shape import LayerShape
from curvlab.factor_files.statistics import COLUMNS, FISHER_DIAGONAL
from curvlab.formats.lazy_tensors import LazyTensors
from curvlab.formats.paths import regular_file
from curvlab.formats.safetensors.file import readers
from curvlab.formats.safetensors.header import MAX_HEADER_BYTES, Header, read_header
from curvlab.formats.safetensors.writing import write_safetensors
from curvlab.formats.whole_file import whole_file
from curvlab.quoting import listed, quoted, reason


def write_factors(factors: Factors, path: str | os.PathLike[str]) -> None:
    """Write factors so that `load_factors` gives them back; the file appears complete or not at all.

    Raises:
        CheckpointError: there are none, or the file cannot be written.
    """
    path = Path(path)
    if not len(factors):
        raise CheckpointError(f"there are no factors to write to {quoted(path)}", "no layer has any")
    if not path.name or path.is_dir():
        raise CheckpointError(f"{quoted(path)} is no file name")
    text = described(factors)
    if len(text) > MAX_HEADER_BYTES // 2:
        raise CheckpointError(f"the factors of {len(factors):,} layers are too many for one file", do="give --layers")
    every: dict[str, Callable[[], Tensor]] = {}
    for layer in factors.values():
        for statistic in layer.tensors:
            every[_key(layer.shape, statistic)] = partial(layer.tensors.__getitem__, statistic)
    with whole_file(path, "the factor file") as beside:
        write_safetensors(beside, LazyTensors(every), {KEY: text})


def load_factors(path: str | os.PathLike[str]) -> Factors:
    """The factors of a file that `curvlab analyze --factors` or `save_factors` has written.

    Returns:
        {layer: `.mean`, `.second_moment`, `.input_factor`, `.gradient_factor`, `.fisher_diagonal`, `.count`}, in the
        model's order. Only the header is read now, and each tensor when it is asked for.

    Raises:
        CheckpointError: it is no factor file, or not what it says it is. A tensor that is asked for raises it too, when
            its numbers are not finite.
    """
    path = regular_file(Path(path))
    try:
        header = read_header(path)
    except OSError as error:
        raise CheckpointError(f"{quoted(path)} cannot be read", reason(error)) from None
    if not header.metadata.get(KEY, "").startswith("{"):
        what = "it holds averages of an optimizer" if KEY in header.metadata else "its metadata does not say so"
        raise CheckpointError(f"{quoted(path)} is no factor file", what, "write one by curvlab analyze --factors")
    try:
        origin, shapes = parse(header.metadata[KEY])
        tensors = _by_layer(header, {name: shape for name, (shape, _) in shapes.items()})
    except ValueError as error:
        raise CheckpointError(f"{quoted(path)} is no factor file that can be used", str(error)) from None
    readers_ = readers(path, header)
    layers = {
        name: LayerFactors(
            shape,
            origin,
            rows,
            LazyTensors(
                {
                    key: partial(_sound, path, place, readers_[place], shape.widths.get(key.removesuffix(COLUMNS)))
                    for key, place in tensors[name].items()
                }
            ),
        )
        for name, (shape, rows) in shapes.items()
    }
    return Factors(layers, origin)


def _key(shape: LayerShape, statistic: str) -> str:
    """What a tensor is called in the file: the statistic, which has no colon, then whose it is."""
    kind, _, role = statistic.partition(".")
    return f"{kind}:{shape.parameters[role] if role else shape.name}"


def _by_layer(header: Header, shapes: Mapping[str, LayerShape]) -> dict[str, dict[str, str]]:
    """Layer -> statistic -> name of its tensor.

    Raises:
        ValueError: a tensor is of no layer, or not of the shape that it must have there.
    """
    owners: dict[str, list[tuple[str, str]]] = {}
    for name, shape in shapes.items():
        for role, parameter in shape.parameters.items():
            owners.setdefault(parameter, []).append((name, f"{FISHER_DIAGONAL}.{role}"))
    found: dict[str, dict[str, str]] = {name: {} for name in shapes}
    strange = []
    for place, entry in header.entries.items():
        kind, _, owner = place.partition(":")
        wanted = owners.get(owner, []) if kind == FISHER_DIAGONAL else [(owner, kind)] if owner in shapes else []
        if not wanted:
            strange.append(place)
        for name, statistic in wanted:
            if why := expected_shape(statistic, shapes[name], entry.spec):
                raise ValueError(f"the tensor {quoted(place)} {why}")
            found[name][statistic] = place
    for name, places in found.items():
        if why := misfit(shapes[name], {key: header.entries[place].spec for key, place in places.items()}):
            raise ValueError(why)
    if strange:
        raise ValueError(f"it holds {listed(strange)}, of no layer that it describes")
    return found


def _sound(path: Path, name: str, read: Callable[[], Tensor], width: int | None) -> Tensor:
    """A tensor whose numbers are finite, and ascending places of a matrix of that width where they are columns.

    Raises:
        CheckpointError: they are not.
    """
    tensor = read()
    if name.partition(":")[0].endswith(COLUMNS):
        if bool((tensor.diff() <= 0).any()) or int(tensor[0]) < 0 or int(tensor[-1]) >= (width or 0):
            raise CheckpointError(f"the columns {quoted(name)} in {quoted(path)} are no places in ascending order")
        return tensor
    if not bool(tensor.isfinite().all()):
        raise CheckpointError(f"the factors {quoted(name)} in {quoted(path)} are not finite", do="write the file again")
    return tensor
