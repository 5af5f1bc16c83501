"""FOP's matrices taken apart from the weights that they are stored with, once they are known to belong to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from curvlab.errors import CheckpointError
from curvlab.formats import strict_json
from curvlab.formats.curvlab_file.fop_matrices import KEY, PREFIX, FopMatrices, misfit
from curvlab.formats.lazy_tensors import LazyTensors
from curvlab.formats.raw_checkpoint import RawCheckpoint
from curvlab.quoting import listed, quoted


def without_fop_matrices(stored: RawCheckpoint) -> RawCheckpoint:
    """The weights of a file alone; the matrices it holds beside them, if any, are its `fop`.

    Raises:
        CheckpointError: the matrices are not those that the metadata describes, or do not fit the weights.
    """
    named = {name.removeprefix(PREFIX): name for name in stored.specs if name.startswith(PREFIX)}
    if not named and KEY not in stored.metadata:
        return stored
    try:
        described = _described(stored.metadata.get(KEY, "{}"))
        if named.keys() != described.keys():
            different = sorted(named.keys() ^ described.keys())
            raise ValueError(f"metadata and tensors differ in {listed(different)}")
        tied = [name for pair in stored.aliases.items() for name in pair if name.startswith(KEY)]
        if tied:
            raise ValueError(f"{quoted(tied[0])} is said to be a tied weight")
        for parameter, name in named.items():
            known, spec = stored.specs.get(stored.aliases.get(parameter, parameter)), stored.specs[name]
            shape, form = None if known is None else known.shape, described[parameter]["form"]
            if why := misfit(shape, spec.shape, spec.dtype, form):
                raise ValueError(f"of {quoted(parameter)}: {why}")
    except ValueError as error:
        raise CheckpointError(
            f"the FOP matrices in {quoted(stored.files[0])} cannot be read", str(error), "write the file with curvlab"
        ) from None
    weights = [name for name in stored.specs if not name.startswith(PREFIX)]
    found = FopMatrices(
        LazyTensors({parameter: stored.tensors.reader(name) for parameter, name in named.items()}),
        {parameter: one["form"] for parameter, one in described.items()},
        {parameter: one["norm"] for parameter, one in described.items()},
    )
    return replace(
        stored,
        specs={name: stored.specs[name] for name in weights},
        tensors=LazyTensors({name: stored.tensors.reader(name) for name in weights}),
        fop=found,
    )


def _described(text: str) -> dict[str, dict[str, Any]]:
    found = strict_json.parse(text)
    if not isinstance(found, dict) or not all(map(_valid, found.values())):
        raise ValueError("their metadata is not what curvlab writes")
    return found


def _valid(one: object) -> bool:
    if not isinstance(one, dict) or one.keys() != {"form", "norm"}:
        return False
    return isinstance(one["norm"], bool) and one["form"] in ("full", "low-rank")
