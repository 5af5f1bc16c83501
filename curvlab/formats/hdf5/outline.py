"""What an HDF5 file holds, learned without reading a tensor or following a link out of the file.

HDF5 can name other files in four ways (external links, virtual datasets, external storage, soft links into any of
them), and plain h5py follows all four. A file of weights needs none, so each is refused: hard links only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5s, h5t

from curvlab.errors import CheckpointError
from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.hdf5.chunks import Opener, grown, try_chunks
from curvlab.formats.hdf5.strings import measured
from curvlab.formats.names import MAX_NAME
from curvlab.formats.zip_archive import FREE_EXPANSION_BYTES, MAX_EXPANSION
from curvlab.quoting import listed, quoted, reason

MAX_OBJECTS = 200_000
MAX_DEPTH = 64
# A network's description with its layers' vocabularies; everything else kept in strings is far shorter.
MAX_TEXT_BYTES = 16 * 2**20
# What all the strings of one list could take if each were as long as the longest in the file.
_MAX_LIST_BYTES = 2**30
_LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link into another file"}
# shuffle, gzip, fletcher32, szip, n-bit, scale-offset, lzf: filters that h5py brings; others would load a plugin.
_FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})
_NUMBERS = "float16 float32 float64 complex64 complex128 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool"


@dataclass(frozen=True)
class Dataset:
    """One array of the file.

    Attributes:
        spec: shape and element type.
        address: of its header: two names of one address are one array.
        offset: where its bytes begin, if they stand in one piece.
        chunked: they stand in pieces that an index in the file leads to.
    """

    spec: TensorSpec
    address: tuple[int, ...]
    offset: int | None = None
    chunked: bool = False


@dataclass
class Outline:
    """What the file holds.

    Attributes:
        datasets: path without a leading slash -> its array.
        strings: path of a group -> its attributes that are text.
        lists: path of a group -> its attributes that are lists of text.
        skipped: datasets that hold no numbers.
        unread: attributes too long to be read.
        plain: every string of the file can be read: none can be absurdly long.
    """

    datasets: dict[str, Dataset] = field(default_factory=dict)
    strings: dict[str, dict[str, str]] = field(default_factory=dict)
    lists: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    plain: bool = True

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out."""
        notes = []
        if self.skipped:
            notes.append(f"left out, for they hold no numbers: {listed(self.skipped)}")
        if self.unread:
            notes.append(f"not read, for its length is absurd: {listed(self.unread)}")
        return tuple(notes)


@contextmanager
def opened(path: Path, source: Opener) -> Iterator[h5py.File]:
    """The file, open for reading.

    Raises:
        CheckpointError: it is no HDF5 file, or whatever went wrong inside h5py while it was open.
    """
    stream = source()
    try:
        with h5py.File(stream, "r", locking=False) if isinstance(stream, Path) else h5py.File(stream, "r") as file:
            yield file
    except CheckpointError:
        raise
    except Exception as error:  # h5py raises whatever the bytes provoke
        raise CheckpointError(
            f"{quoted(path)} is a damaged HDF5 file", reason(error), "download or copy it again"
        ) from None
    finally:
        if not isinstance(stream, Path):
            stream.close()


def outline(path: Path, source: Opener) -> Outline:
    """Everything in the file: shapes, types and texts, no tensor.

    Args:
        path: for messages.
        source: gives the file or a stream over its bytes.

    Raises:
        CheckpointError: damaged, linked to other files, cyclic, deeper or larger than any model, or a dataset that
            would grow far beyond the bytes that the file has for it.
    """
    file_bytes, longest = measured(path, source)
    with opened(path, source) as file:
        walk = _Walk(path, file_bytes, longest)
        walk.group(h5g.open(file.id, b"/"), "")
    try_chunks(path, source, {name: d.spec.stored_bytes for name, d in walk.found.datasets.items() if d.chunked})
    return walk.found


class _Walk:
    def __init__(self, path: Path, file_bytes: int, longest: int) -> None:
        self.path, self.file_bytes, self.longest = path, file_bytes, longest
        self.found = Outline(plain=longest <= MAX_TEXT_BYTES)
        self.groups: set[tuple[int, ...]] = set()
        self.objects = 0

    def group(self, group: Any, name: str) -> None:
        # get_objinfo and not h5o.get_info, which follows the indices of datasets to add up their sizes.
        address = h5g.get_objinfo(group, b".").objno
        if address in self.groups:
            raise self.refused(f"its group {quoted(name)} stands in it twice, or inside itself")
        self.groups.add(address)
        if name.count("/") > MAX_DEPTH:
            raise self.refused(f"its groups are nested deeper than {MAX_DEPTH}")
        self.attributes(group, name)
        for key in group:
            self.objects += 1
            child = f"{name}/{key.decode('utf-8', 'replace')}" if name else key.decode("utf-8", "replace")
            if self.objects > MAX_OBJECTS:
                raise self.refused(f"it has more than {MAX_OBJECTS} groups and datasets")
            if len(child) > MAX_NAME:
                raise self.refused(f"the name {quoted(child)} is longer than {MAX_NAME} letters")
            kind = group.links.get_info(key).type
            if kind != h5l.TYPE_HARD:
                raise self.refused(f"its entry {quoted(child)} is {_LINKS.get(kind, 'a link of an unknown kind')}")
            info = h5g.get_objinfo(group, key)
            if info.type == h5g.GROUP:
                self.group(h5g.open(group, key), child)
            elif info.type == h5g.DATASET:
                self.dataset(h5d.open(group, key), child, info.objno)

    def dataset(self, dataset: Any, name: str, address: tuple[int, ...]) -> None:
        layout = dataset.get_create_plist()
        # Before anything else: asking a virtual dataset for its shape opens the files it names.
        if layout.get_layout() == h5d.VIRTUAL:
            raise self.refused(f"its dataset {quoted(name)} is virtual: its numbers are in other files")
        if layout.get_external_count():
            raise self.refused(f"the numbers of its dataset {quoted(name)} are in other files")
        filters = {layout.get_filter(i)[0] for i in range(layout.get_nfilters())}
        if not filters <= _FILTERS:
            raise self.refused(f"its dataset {quoted(name)} needs the foreign filter {min(filters - _FILTERS)}")
        dtype, shape = _element(dataset), dataset.get_space().shape
        if dtype is None or shape is None:
            self.found.skipped.append(name)
            return
        spec = TensorSpec(tuple(int(side) for side in shape), dtype)
        chunked = layout.get_layout() == h5d.CHUNKED
        # libhdf5 adds up the pieces by following their index, which `try_chunks` leaves to a process of its own.
        stored = self.file_bytes if chunked else min(dataset.get_storage_size(), self.file_bytes)
        if spec.stored_bytes > FREE_EXPANSION_BYTES + MAX_EXPANSION * stored:
            raise grown(self.path, name, stored, spec.stored_bytes)
        offset = dataset.get_offset() if layout.get_layout() == h5d.CONTIGUOUS and stored else None
        if offset is not None and offset + spec.stored_bytes > self.file_bytes:
            raise self.refused(f"its dataset {quoted(name)} ends behind the end of the file")
        self.found.datasets[name] = Dataset(spec, address, offset, chunked)

    def attributes(self, group: Any, name: str) -> None:
        for index in range(h5a.get_num_attrs(group)):
            attribute = h5a.open(group, index=index)
            key = attribute.name.decode("utf-8", "replace")
            kind, space = attribute.get_type(), attribute.get_space()
            if kind.get_class() != h5t.STRING or space.get_simple_extent_type() == h5s.NULL or len(key) > MAX_NAME:
                continue
            count, scalar = int(space.get_simple_extent_npoints()), space.get_simple_extent_type() == h5s.SCALAR
            length = self.longest if kind.is_variable_str() else kind.get_size()
            if count == 0:
                continue
            if length > MAX_TEXT_BYTES or length * count > _MAX_LIST_BYTES or count > MAX_OBJECTS:
                self.found.unread.append(f"{name}/{key}" if name else key)
                continue
            value = np.empty(space.shape, dtype=attribute.dtype)
            attribute.read(value)
            texts = [_text(part) for part in value.reshape(-1)]
            if scalar:
                self.found.strings.setdefault(name, {})[key] = texts[0]
            else:
                self.found.lists.setdefault(name, {})[key] = texts

    def refused(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{quoted(self.path)} is an HDF5 file that is not safe to read", why, "get the model from its author again"
        )


def _element(dataset: Any) -> str | None:
    """Name of torch's element type, or None where the elements are no numbers."""
    kind = dataset.get_type()
    if kind.get_class() == h5t.OPAQUE and kind.get_size() == 2:
        return "bfloat16"  # numpy has no such type, so h5py writes its two bytes as they are
    if kind.get_class() not in (h5t.FLOAT, h5t.INTEGER, h5t.ENUM, h5t.COMPOUND):
        return None
    try:
        name = np.dtype(kind.dtype).name
    except TypeError:
        return None
    return name if name in _NUMBERS.split() else None


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
