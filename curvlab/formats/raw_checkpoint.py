"""RawCheckpoint: what one reader found in a file, before names are cleaned, layers inferred and a network built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from curvlab.errors import MemoryBudgetError
from curvlab.formats.dtypes import TensorSpec
from curvlab.formats.lazy_tensors import LazyTensors
from curvlab.quoting import quoted

if TYPE_CHECKING:
    from curvlab.formats.curvlab_file.fop_matrices import FopMatrices


@dataclass(frozen=True)
class RawCheckpoint:
    """The contents of a file as its reader understood them.

    Attributes:
        format: name of a registered format.
        files: every file read, the given one first.
        specs: name -> shape and element type, in the file's order, known without reading a tensor.
        tensors: the same names -> tensors, lazily.
        aliases: a second name of a tied tensor -> its name in `tensors`.
        metadata: strings stored beside the tensors.
        ordered: the file's order is the network's own (a pickled dictionary), not the alphabet's (safetensors).
        notes: sentences for the user.
        data: the dataset it was trained on, where a file of curvlab's own says so.
        likelihood: "categorical", "bernoulli" or "gaussian", likewise.
        fop: the matrices that FOP learned, likewise.
        tables: names of the tensors that the file says are embedding tables.
        experts: how many experts a layer has, as far as a configuration says so.
    """

    format: str
    files: tuple[Path, ...]
    specs: Mapping[str, TensorSpec]
    tensors: LazyTensors
    aliases: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    ordered: bool = False
    notes: tuple[str, ...] = ()
    data: str | None = None
    likelihood: str | None = None
    fop: FopMatrices | None = None
    tables: frozenset[str] = frozenset()
    experts: frozenset[int] = frozenset()


def check_budget(path: Path, raw: RawCheckpoint, max_memory: int | None) -> None:
    """Do nothing when the largest tensor fits into `max_memory`.

    Raises:
        MemoryBudgetError: it does not.
    """
    name, largest = max(raw.specs.items(), key=lambda item: item[1].stored_bytes)
    if max_memory is not None and largest.stored_bytes > max_memory:
        raise MemoryBudgetError(
            f"tensor {quoted(name)} of {quoted(path)} takes {largest.stored_bytes} bytes",
            f"--max-memory allows {max_memory}",
            "raise the limit",
        )
