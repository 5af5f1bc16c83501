"""FOP's learned matrices in a curvlab file: tensors `curvlab.fop.<parameter>` `[d, k]` beside the weights.

The metadata key `curvlab.fop` says what they mean, as JSON {parameter: {"form": "full" or "low-rank", "norm": bool}}:
P = c·MMᵀ or c·(I + MMᵀ), with c = √d/‖·‖ where "norm" is true, else 1.

No weight's name begins with `curvlab.`, so that a reader tells them apart by their names alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from curvlab.checkpoints import strict_json
from curvlab.checkpoints.quoting import listed, quoted
from curvlab.checkpoints.stored import LazyTensors, Stored
from curvlab.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from curvlab.curvatures.fop import LearnedMatrix
    from curvlab.operators.operator import Operator

KEY = "curvlab.fop"
PREFIX = "curvlab.fop."


@dataclass(frozen=True)
class FopMatrices:
    """Learned matrices by parameter name.

    Attributes:
        factors: parameter -> M `[d, k]`; those of a file are read when asked for.
        forms: parameter -> whether P is "full" or "low-rank".
        normalized: parameter -> whether P is scaled to the norm of the identity.
    """

    factors: Mapping[str, Tensor]
    forms: Mapping[str, str]
    normalized: Mapping[str, bool]

    def form(self, parameter: str) -> LearnedMatrix:
        """What M means."""
        from curvlab.curvatures.fop import LearnedMatrix

        rank = None if self.forms[parameter] == "full" else self.factors[parameter].shape[1]
        return LearnedMatrix(rank, normalized=self.normalized[parameter])

    def operator(self, parameter: str) -> Operator:
        """P, for `spectrum`, `eigenvalues` and `matrix`."""
        return self.form(parameter).operator(self.factors[parameter])

    def tensors(self) -> dict[str, Tensor]:
        """What to store beside the weights."""
        import torch

        return {
            PREFIX + name: m.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, m in self.factors.items()
        }

    def metadata(self) -> dict[str, str]:
        """What to store in the metadata; nothing when there are no matrices."""
        described = {name: {"form": self.forms[name], "norm": self.normalized[name]} for name in self.factors}
        return {KEY: json.dumps(described, sort_keys=True)} if described else {}


def fop_matrices(factors: Mapping[str, Tensor], forms: Mapping[str, LearnedMatrix]) -> FopMatrices:
    """Of an optimizer: `fop_matrices(optimizer.matrices, optimizer.forms)`."""
    return FopMatrices(
        factors,
        {name: "full" if form.rank is None else "low-rank" for name, form in forms.items()},
        {name: form.normalized for name, form in forms.items()},
    )


def without_fop_matrices(stored: Stored) -> tuple[Stored, FopMatrices | None]:
    """The weights of a file alone, and the matrices it holds beside them, if any.

    Raises:
        CheckpointError: the matrices are not those that the metadata describes, or do not fit the weights.
    """
    named = {name.removeprefix(PREFIX): name for name in stored.specs if name.startswith(PREFIX)}
    if not named and KEY not in stored.metadata:
        return stored, None
    from curvlab.curvatures.fop import dimension

    described = _described(stored.metadata.get(KEY, "{}"))
    weights = [name for name in stored.specs if not name.startswith(PREFIX)]
    if named.keys() != described.keys():
        different = sorted(named.keys() ^ described.keys())
        raise _wrong(f"metadata and tensors differ in {listed(different)}")
    for parameter, name in named.items():
        known, spec = stored.specs.get(stored.aliases.get(parameter, parameter)), stored.specs[name]
        size = None if known is None else dimension(known.shape)
        least = size if described[parameter]["form"] == "full" else 1
        if size is None or least is None or len(spec.shape) != 2 or spec.shape[0] != size:
            raise _wrong(f"the one of {quoted(parameter)} has shape {tuple(spec.shape)} and does not fit the parameter")
        if not least <= spec.shape[1] <= size or "float" not in spec.dtype:
            raise _wrong(
                f"the one of {quoted(parameter)} is {tuple(spec.shape)} of {spec.dtype}, not what it is said to be"
            )
    found = FopMatrices(
        LazyTensors({parameter: stored.tensors.reader(name) for parameter, name in named.items()}),
        {parameter: one["form"] for parameter, one in described.items()},
        {parameter: one["norm"] for parameter, one in described.items()},
    )
    return (
        replace(
            stored,
            specs={name: stored.specs[name] for name in weights},
            tensors=LazyTensors({name: stored.tensors.reader(name) for name in weights}),
        ),
        found,
    )


def _described(text: str) -> dict[str, dict[str, Any]]:
    try:
        found = strict_json.parse(text)
    except ValueError as error:
        raise _wrong(str(error)) from None
    if not isinstance(found, dict) or not all(map(_valid, found.values())):
        raise _wrong("their metadata is not what curvlab writes")
    return found


def _valid(one: object) -> bool:
    fine = isinstance(one, dict) and one.keys() == {"form", "norm"} and isinstance(one["norm"], bool)
    return fine and isinstance(one, dict) and one["form"] in ("full", "low-rank")


def _wrong(why: str) -> CheckpointError:
    return CheckpointError("the FOP matrices of the file cannot be read", why, "write the file again with curvlab")
