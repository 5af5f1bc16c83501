"""The header of a GGUF file, checked against the bytes of the file before a tensor is read.

    magic "GGUF" · version · number of tensors · number of settings
    settings: key, type, value
    tensors: name, number of dimensions, dimensions, type, offset from the data's beginning

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from curvlab.errors import CheckpointError
from curvlab.formats.gguf.walk import Claim, Walk
from curvlab.formats.names import MAX_NAME
from curvlab.quoting import quoted

VERSIONS = (2, 3)
MOST_TENSORS, MOST_SETTINGS = 250_000, 100_000
MOST_DIMENSIONS, MOST_KEY = 4, 2**16
ALIGNMENT = 32
MOST_ALIGNMENT = 2**20


class Stored(NamedTuple):
    """One tensor.

    Attributes:
        shape: as torch has it, which is the file's backwards.
        kind: number of its type.
        begin: of its bytes, from the file's beginning.
        row: bytes of one row (the last axis).
    """

    shape: tuple[int, ...]
    kind: int
    begin: int
    row: int

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.row * prod(self.shape[:-1])


class Header(NamedTuple):
    """Tensors in the file's order, its short settings, and the size of the file they were checked against."""

    tensors: dict[str, Stored]
    settings: dict[str, Any]
    size: int


def read_header(path: Path, blocks: dict[int, tuple[int, int]]) -> Header:
    """The checked header.

    Args:
        path: the file.
        blocks: number of a type -> elements in a block, and bytes of it.

    Raises:
        CheckpointError: anything that a correct writer does not produce.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            return _header(Walk(file, size), blocks)
    except Claim as claim:
        do = "download or copy it again"
        raise CheckpointError(f"{quoted(path)} is not a valid GGUF file", str(claim), do) from None


def _header(walk: Walk, blocks: dict[int, tuple[int, int]]) -> Header:
    walk.take(4)
    version = walk.number("I")
    if version not in VERSIONS:
        big = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        raise Claim("its numbers are big-endian" if big else f"it is of version {version}, and {VERSIONS} are known")
    tensors, settings = walk.number("Q"), walk.number("Q")
    if tensors > MOST_TENSORS or settings > MOST_SETTINGS:
        raise Claim(f"it claims {tensors} tensors and {settings} settings")
    found: dict[str, Any] = {}
    for _ in range(settings):
        key = walk.string(MOST_KEY, "a key")
        value = walk.value(walk.number("I"))
        if key in found:
            raise Claim(f"the setting {quoted(key)} stands in it twice")
        found[key] = value
    described = _described(walk, tensors, blocks)
    alignment = found.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= MOST_ALIGNMENT or alignment & (alignment - 1):
        raise Claim(f"its alignment is {quoted(alignment)}")
    data = -(-walk.position // alignment) * alignment
    placed = {name: one._replace(begin=data + one.begin) for name, one in described.items()}
    _check_places(placed, alignment, walk.size)
    return Header(placed, {key: value for key, value in found.items() if value is not None}, walk.size)


def _described(walk: Walk, count: int, blocks: dict[int, tuple[int, int]]) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for _ in range(count):
        name = walk.string(MAX_NAME, "the name of a tensor")
        dimensions = walk.number("I")
        if not 0 < dimensions <= MOST_DIMENSIONS:
            raise Claim(f"the tensor {quoted(name)} claims {dimensions} dimensions")
        shape = tuple(reversed([walk.number("Q") for _ in range(dimensions)]))
        kind, offset = walk.number("I"), walk.number("Q")
        if name in found:
            raise Claim(f"the tensor {quoted(name)} stands in it twice")
        if kind not in blocks:
            raise Claim(f"the tensor {quoted(name)} has the type {kind}, which the library gguf does not know")
        elements, block = blocks[kind]
        if prod(shape) > 8 * elements * walk.size or min(shape) < 1 or shape[-1] % elements:
            raise Claim(f"the tensor {quoted(name)} claims the shape {shape} in blocks of {elements}")
        found[name] = Stored(shape, kind, offset, shape[-1] // elements * block)
    return found


def _check_places(tensors: dict[str, Stored], alignment: int, size: int) -> None:
    before, end = "", 0
    for name, one in sorted(tensors.items(), key=lambda item: item[1].begin):
        if one.begin % alignment:
            raise Claim(f"the tensor {quoted(name)} does not begin at a multiple of {alignment}")
        if one.begin < end:
            raise Claim(f"the tensor {quoted(name)} lies over {quoted(before)}")
        before, end = name, one.begin + one.size
        if end > size:
            raise Claim(f"it ends {end - size} bytes before the tensor {quoted(name)} does")
